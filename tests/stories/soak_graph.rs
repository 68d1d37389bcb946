//! A picture of a soak: memory and open files over time.

use std::fmt::Write as _;

use crate::soak::Sample;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 56.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 32.0;
/// Lines across.
const GRID: u32 = 4;

/// One curve for each axis: memory on the left, open files on the right, both from zero.
pub fn svg(samples: &[Sample]) -> String {
    let memory = |sample: &Sample| sample.memory_bytes as f64 / f64::from(1 << 20);
    let files = |sample: &Sample| sample.open_files as f64;
    let minutes = |sample: &Sample| sample.seconds as f64 / 60.0;
    let longest = samples.last().map_or(1.0, minutes).max(0.1);
    let (memory_top, files_top) = (ceiling(samples, memory), ceiling(samples, files));
    let x = |minutes: f64| LEFT + (WIDTH - LEFT - RIGHT) * minutes / longest;
    let y = |share: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    );
    let mut text = |x: f64, y: f64, anchor: &str, colour: &str, text: &str| {
        writeln!(
            svg,
            "<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>"
        )
        .expect("a string takes all");
    };
    text(LEFT, 16.0, "start", MEMORY, "resident memory, MiB");
    text(WIDTH - RIGHT, 16.0, "end", FILES, "open files");
    text(WIDTH / 2.0, HEIGHT - 4.0, "middle", TEXT, "minutes");
    for line in 0..=GRID {
        let share = f64::from(line) / f64::from(GRID);
        let at = y(share) + 4.0;
        text(LEFT - 6.0, at, "end", MEMORY, &round(memory_top * share));
        text(
            WIDTH - RIGHT + 6.0,
            at,
            "start",
            FILES,
            &round(files_top * share),
        );
        let minutes = longest * share;
        text(
            x(minutes),
            HEIGHT - BOTTOM + 14.0,
            "middle",
            TEXT,
            &round(minutes),
        );
    }
    for line in 0..=GRID {
        let at = y(f64::from(line) / f64::from(GRID));
        writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{at:.0}\" x2=\"{:.0}\" y2=\"{at:.0}\" stroke=\"#dddddd\"/>",
            WIDTH - RIGHT
        )
        .expect("a string takes all");
    }
    let mut curve = |of: &dyn Fn(&Sample) -> f64, top: f64, colour: &str| {
        let points: Vec<String> = samples
            .iter()
            .map(|sample| format!("{:.1},{:.1}", x(minutes(sample)), y(of(sample) / top)))
            .collect();
        writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>",
            points.join(" ")
        )
        .expect("a string takes all");
    };
    curve(&memory, memory_top, MEMORY);
    curve(&files, files_top, FILES);
    svg.push_str("</svg>\n");
    svg
}

const MEMORY: &str = "#b45309";
const FILES: &str = "#1d4ed8";
const TEXT: &str = "#444444";

/// The top of an axis: the largest value and some room, a round number.
fn ceiling(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let most = samples.iter().map(of).fold(1.0, f64::max) * 1.2;
    let step = 10f64.powf(most.log10().floor()) / 2.0;
    (most / step).ceil() * step
}

fn round(number: f64) -> String {
    if number.fract() == 0.0 || number >= 20.0 {
        format!("{number:.0}")
    } else {
        format!("{number:.1}")
    }
}
