"use strict";
// Draws what /api/events tells. Everything is text or SVG that this script makes: nothing that is told is ever
// read as HTML.
(() => {
  const RECONNECT_MS = 10000; // where the stream is refused, the figures are asked for this often
  const RECENT_POINTS = 90; // of the small curves: a minute and a half
  const DIAL = { x: 160, y: 160, r: 128 };

  const byId = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  let report = null;
  let skew = 0; // the server's clock minus ours, in seconds
  let before = null; // the report before, for rates
  const requestRates = [];
  const memories = [];

  // --- small words

  const number = (value) => value.toLocaleString("en");
  const plural = (count, one, many) => `${number(count)} ${count === 1 ? one : many}`;
  const rounded = (value) => (value < 10 ? value.toFixed(1).replace(/\.0$/, "") : String(Math.round(value)));

  function bytes(value) {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let unit = 0;
    while (value >= 999.5 && unit < units.length - 1) {
      value /= 1000;
      unit += 1;
    }
    return `${unit === 0 ? value : rounded(value)} ${units[unit]}`;
  }

  function vbytes(value) {
    return bytes(value).replace("kB", "kvB").replace("MB", "MvB").replace(/ B$/, " vB");
  }

  function span(seconds) {
    seconds = Math.max(0, Math.round(seconds));
    if (seconds < 60) return plural(seconds, "second", "seconds");
    if (seconds < 7200) return plural(Math.floor(seconds / 60), "minute", "minutes");
    if (seconds < 172800) return plural(Math.floor(seconds / 3600), "hour", "hours");
    return plural(Math.floor(seconds / 86400), "day", "days");
  }

  function soon(seconds) {
    return seconds < 60 ? "less than a minute left" : `${span(seconds + 30)} left`;
  }

  function quick(seconds) {
    if (seconds < 0.001) return `${rounded(seconds * 1e6)} µs`;
    if (seconds < 1) return `${rounded(seconds * 1e3)} ms`;
    return `${rounded(seconds)} s`;
  }

  const now = () => Date.now() / 1000 + skew;

  // --- the document

  function say(id, text) {
    const element = byId(id);
    // What stands there already is not said again to those who listen.
    if (element.textContent !== text) element.textContent = text;
  }

  function make(name, attributes, ...inside) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
    element.append(...inside);
    return element;
  }

  function draw(name, attributes, ...inside) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
    element.append(...inside);
    return element;
  }

  // Rows of [name, value, share, is it bad]: a share is drawn as a meter below.
  function rows(id, list) {
    const made = list.filter((row) => row && row[1] !== null && row[1] !== undefined).map(([name, value, share, isBad]) => {
      const row = make("div", {}, make("dt", {}, name), make("dd", isBad ? { class: "bad" } : {}, String(value)));
      if (typeof share === "number") {
        const fill = make("i");
        fill.style.width = `${(100 * Math.min(1, Math.max(0, share))).toFixed(1)}%`;
        row.append(make("div", { class: share > 0.95 && isBad ? "meter is-full" : "meter", "aria-hidden": "true" }, fill));
      }
      return row;
    });
    byId(id).replaceChildren(...made);
  }

  // --- the dial

  function onDial(share, radius) {
    const angle = 2 * Math.PI * share - Math.PI / 2;
    return [DIAL.x + radius * Math.cos(angle), DIAL.y + radius * Math.sin(angle)];
  }

  function arc(share) {
    share = Math.min(0.9999, Math.max(0, share));
    const [x, y] = onDial(share, DIAL.r);
    const long = share > 0.5 ? 1 : 0;
    return `M${DIAL.x} ${DIAL.y - DIAL.r}A${DIAL.r} ${DIAL.r} 0 ${long} 1 ${x.toFixed(2)} ${y.toFixed(2)}`;
  }

  let scale = null;
  function drawScale(labels) {
    if (scale === labels.join()) return;
    scale = labels.join();
    const ticks = [];
    for (let tick = 0; tick < 60; tick += 1) {
      const isLong = tick % 5 === 0;
      const [x1, y1] = onDial(tick / 60, DIAL.r - 10);
      const [x2, y2] = onDial(tick / 60, DIAL.r - (isLong ? 17 : 14));
      const place = { x1: x1.toFixed(2), y1: y1.toFixed(2), x2: x2.toFixed(2), y2: y2.toFixed(2) };
      ticks.push(draw("line", isLong ? { ...place, class: "long" } : place));
    }
    labels.forEach((label, at) => {
      const [x, y] = onDial(at / labels.length, DIAL.r + 17);
      ticks.push(draw("text", { x: x.toFixed(2), y: y.toFixed(2) }, label));
    });
    byId("dial-ticks").replaceChildren(...ticks);
    byId("dial-track").setAttribute("d", arc(1));
  }

  function turn(share) {
    const [x, y] = onDial(Math.min(1, share), DIAL.r);
    byId("dial-arc").setAttribute("d", arc(share));
    byId("dial-hand").setAttribute("cx", x.toFixed(2));
    byId("dial-hand").setAttribute("cy", y.toFixed(2));
  }

  // The node is there, and has not all its blocks yet.
  function isDownloading() {
    return report.stage === "waiting" && report.node.state === "up" && report.node.initial_block_download === true;
  }

  function drawDial() {
    if (!report) return;
    let name, value, note, below, share;
    if (isDownloading()) {
      drawScale(["0", "25", "50", "75"]);
      // The node's estimate goes by transactions; on regtest it is none.
      const { blocks, headers } = report.node;
      share = Math.min(report.node.verification_progress || 0, blocks / Math.max(1, headers));
      [name, value, note] = ["DOWNLOAD", `${(Math.floor(share * 1000) / 10).toFixed(1)} %`, `block ${number(blocks)} of ${number(headers)}`];
      below = "of the chain is with your node";
    } else if (report.stage === "waiting") {
      drawScale(["0", "15", "30", "45"]);
      [name, value, note, below, share] = ["WAITING", "–", `for ${span(now() - report.started)}`, "", (now() - report.started) / 3600];
    } else if (report.stage === "in_step") {
      // The hand goes round once an hour: a block comes every ten minutes, on average.
      drawScale(["0", "15", "30", "45"]);
      const age = now() - report.tip.time;
      share = age / 3600;
      name = "BLOCK";
      value = number(report.tip.height);
      note = age < 5 ? "just now" : `${span(age)} ago`;
      below = share > 1 ? "The dial shows the last hour." : "minutes since the newest block";
    } else {
      drawScale(["0", "25", "50", "75"]);
      share = report.sync.share;
      name = report.stage === "first_sync" ? "FIRST SYNC" : "CATCHING UP";
      // Not 100 before it is done.
      value = `${(Math.floor(share * 1000) / 10).toFixed(1)} %`;
      note = report.sync.seconds_left === null ? "" : soon(report.sync.seconds_left);
      below = report.stage === "first_sync" ? "of the index is built" : "of the node's blocks are indexed";
    }
    // A block's own time may be ahead of the clock.
    turn(Math.max(0, share));
    say("dial-name", name);
    say("dial-value", value);
    byId("dial-value").setAttribute("class", value.length > 8 ? "is-long" : "");
    say("dial-note", note);
    say("dial-below", below);
    say("dial-says", [name.toLowerCase(), value, note].filter(Boolean).join(", "));
    document.title = report.stage === "waiting" ? "Ambra" : `${value} · Ambra`;
  }

  // --- plots

  function frame(id) {
    const place = byId(id);
    const width = Math.max(260, place.clientWidth);
    const height = Math.max(230, Math.min(300, place.clientHeight || 230));
    return { place, width, height, left: 52, right: 10, top: 18, bottom: 26 };
  }

  // Round steps for an axis: 1, 2 or 5 times a power of ten.
  function step(max, count) {
    const raw = max / count;
    const power = 10 ** Math.floor(Math.log10(raw));
    return [1, 2, 5, 10].map((times) => times * power).find((size) => size >= raw);
  }

  function canvas(at, ...inside) {
    const svg = draw("svg", { viewBox: `0 0 ${at.width} ${at.height}`, height: at.height, "aria-hidden": "true" }, ...inside);
    at.place.replaceChildren(svg);
  }

  function drawMempool() {
    const mempool = report && report.mempool;
    if (!mempool) return;
    const at = frame("mempool-plot");
    const inner = { width: at.width - at.left - at.right, height: at.height - at.top - at.bottom };
    const all = mempool.by_rate;
    const filled = all.map((bin, index) => (bin.vbytes > 0 ? index : -1)).filter((index) => index >= 0);
    const next = mempool.next_block_from;
    const note = [plural(mempool.transactions, "transaction", "transactions"), vbytes(mempool.vbytes)];
    if (next !== null) note.push(`next block from ${rounded(next)} sat/vB`);
    say("mempool-note", note.join(" · "));
    at.place.setAttribute("aria-label", `Histogram: ${note.join(", ")}. A table with its figures follows.`);
    byId("mempool-rows").replaceChildren(
      ...all.filter((bin) => bin.vbytes > 0).map((bin) =>
        make("tr", {}, make("td", {}, rounded(bin.from)), make("td", {}, number(bin.vbytes)))),
    );
    if (filled.length === 0) {
      const text = draw("text", { class: "empty", x: at.width / 2, y: at.height / 2 }, "No transaction waits.");
      const base = draw("line", { class: "base", x1: at.left, x2: at.width - at.right, y1: at.height - at.bottom, y2: at.height - at.bottom });
      canvas(at, base, text);
      return;
    }
    // What is filled, and some room beside it.
    let from = Math.max(0, filled[0] - 1);
    let to = Math.min(all.length, filled[filled.length - 1] + 2);
    while (to - from < 12 && (from > 0 || to < all.length)) {
      if (to < all.length) to += 1;
      if (to - from < 12 && from > 0) from -= 1;
    }
    const bins = all.slice(from, to);
    const size = step(Math.max(...bins.map((bin) => bin.vbytes)), 3);
    const max = size * Math.ceil(Math.max(...bins.map((bin) => bin.vbytes)) / size);
    const y = (value) => at.top + inner.height * (1 - value / max);
    const slot = inner.width / bins.length;
    const marks = [];
    for (let value = 0; value <= max; value += size) {
      marks.push(draw("line", { class: value === 0 ? "base" : "grid", x1: at.left, x2: at.width - at.right, y1: y(value), y2: y(value) }));
      if (value > 0) marks.push(draw("text", { x: at.left - 8, y: y(value) + 4, "text-anchor": "end" }, vbytes(value)));
    }
    const every = Math.ceil(34 / slot);
    bins.forEach((bin, index) => {
      const x = at.left + slot * index;
      const after = all[from + index + 1];
      const isNext = next === null || (after ? after.from > next : true);
      const height = Math.max(bin.vbytes > 0 ? 2 : 0, inner.height * (bin.vbytes / max));
      const bar = { x: x + slot * 0.1, width: slot * 0.8, y: at.top + inner.height - height, height, rx: 2 };
      marks.push(draw("rect", { ...bar, class: isNext ? "bar next" : "bar" }));
      const range = after ? `${rounded(bin.from)} to ${rounded(after.from)}` : `${rounded(bin.from)} and more`;
      const title = draw("title", {}, `${range} sat/vB: ${vbytes(bin.vbytes)}`);
      marks.push(draw("rect", { class: "hit", x, width: slot, y: at.top, height: inner.height }, title));
      if (index % every === 0) {
        marks.push(draw("text", { x: x + slot * 0.1, y: at.height - 8 }, rounded(bin.from)));
      }
    });
    // Where the next block begins, if not all fits into it.
    const first = bins.findIndex((bin, index) => next !== null && (!all[from + index + 1] || all[from + index + 1].from > next));
    if (first > 0) {
      const x = at.left + slot * first;
      const isLeft = x > at.width - 130;
      marks.push(draw("line", { class: "mark", x1: x, x2: x, y1: at.top, y2: at.top + inner.height }));
      marks.push(draw("text", { class: "mark-text", x: x + (isLeft ? -7 : 7), y: at.top + 16, "text-anchor": isLeft ? "end" : "start" }, "next block"));
    }
    marks.push(draw("text", { x: at.width - at.right, y: 10, "text-anchor": "end" }, "sat/vB →"));
    canvas(at, ...marks);
  }

  function drawSync() {
    const isSyncing = report.stage === "first_sync";
    byId("sync-panel").hidden = !isSyncing;
    if (!isSyncing) return;
    const { curve, share, seconds_left: left, text } = report.sync;
    say("sync-note", text || "");
    const at = frame("sync-plot");
    const inner = { width: at.width - at.left - at.right, height: at.height - at.top - at.bottom };
    const began = curve.length > 0 ? curve[0][0] : 0;
    const points = curve.map(([seconds, done]) => [seconds - began, done]);
    const latest = Math.max(points.length > 0 ? points[points.length - 1][0] : 0, report.now - report.started - began);
    points.push([latest, share]);
    const whole = Math.max(10, latest + (left === null ? latest * 0.2 : left));
    const x = (seconds) => at.left + inner.width * Math.min(1, seconds / whole);
    const y = (done) => at.top + inner.height * (1 - done);
    const marks = [];
    for (const done of [0, 0.25, 0.5, 0.75, 1]) {
      marks.push(draw("line", { class: done === 0 ? "base" : "grid", x1: at.left, x2: at.width - at.right, y1: y(done), y2: y(done) }));
      if (done > 0) marks.push(draw("text", { x: at.left - 8, y: y(done) + 4, "text-anchor": "end" }, `${100 * done} %`));
    }
    const line = points.map(([seconds, done], index) => `${index === 0 ? "M" : "L"}${x(seconds).toFixed(1)} ${y(done).toFixed(1)}`).join("");
    marks.push(draw("path", { class: "area", d: `${line}L${x(latest).toFixed(1)} ${y(0)}L${x(points[0][0]).toFixed(1)} ${y(0)}z` }));
    marks.push(draw("path", { class: "curve", d: line }));
    if (left !== null) {
      marks.push(draw("path", { class: "ahead", d: `M${x(latest).toFixed(1)} ${y(share).toFixed(1)}L${x(whole).toFixed(1)} ${y(1)}` }));
    }
    marks.push(draw("text", { x: at.left, y: at.height - 8 }, "start"));
    if (x(latest) > at.left + 70 && x(latest) < at.width - at.right - 90) {
      marks.push(draw("text", { x: x(latest), y: at.height - 8, "text-anchor": "middle" }, "now"));
    }
    if (left !== null) {
      marks.push(draw("text", { x: at.width - at.right, y: at.height - 8, "text-anchor": "end" }, `in ${span(left < 60 ? left : left + 30)}`));
    }
    canvas(at, ...marks);
    const percent = (100 * share).toFixed(1);
    at.place.setAttribute("aria-label", `Curve of the first sync: ${percent} percent after ${span(latest)}${left === null ? "" : `, ${soon(left)}`}.`);
  }

  // A curve without axes, from nothing to its highest point.
  function spark(id, values, label) {
    const place = byId(id);
    place.setAttribute("aria-label", label);
    const [width, height] = [Math.max(80, place.clientWidth), 34];
    const max = Math.max(...values, 1e-9) * 1.15;
    const x = (index) => (width * (index + RECENT_POINTS - values.length)) / (RECENT_POINTS - 1);
    const y = (value) => height - 2 - (height - 4) * (value / max);
    const line = values.map((value, index) => `${index === 0 ? "M" : "L"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    if (values.length > 1) {
      svg.append(draw("path", { class: "area", d: `${line}L${width} ${height}L${x(0).toFixed(1)} ${height}z` }), draw("path", { class: "curve", d: line }));
    }
    place.replaceChildren(svg);
  }

  function keep(values, value) {
    values.push(value);
    if (values.length > RECENT_POINTS) values.shift();
  }

  // --- figures

  function drawNode() {
    const node = report.node;
    const words = { up: "Reachable", away: "Away", unknown: "–" };
    const progress = node.verification_progress;
    // It was asked some seconds ago; what is indexed, it has.
    const blocks = node.blocks === null ? null : Math.max(node.blocks, report.indexed || 0);
    const isBehind = node.blocks !== null && node.headers !== null && node.headers > blocks;
    const news = { on: "by ZMQ", lost: "ZMQ is lost; polled", off: "polled" };
    say("node-state", words[node.state]);
    byId("node-state").className = node.state === "away" ? "bad" : "";
    rows("node", [
      node.state === "away" && ["Trouble", node.error, undefined, true],
      node.state === "away" && node.answered !== null && ["Last answer", `${span(now() - node.answered)} ago`],
      ["Software", node.version && node.version.replace(/^\/|\/$/g, "").replaceAll("/", " ")],
      node.peers !== null && ["Peers", number(node.peers)],
      blocks !== null && ["Blocks", isBehind ? `${number(blocks)} of ${number(node.headers)}` : number(blocks)],
      progress !== null && (isBehind || progress < 0.9995
        ? ["Verified", `${(Math.floor(progress * 10000) / 100).toFixed(2)} %`, progress]
        : ["Verified", "all of it"]),
      ["Blocks come by", node.block_source],
      ["News come", node.zmq && news[node.zmq], undefined, node.zmq === "lost"],
    ]);
  }

  function drawWallets() {
    const wallets = report.wallets;
    const open = wallets.connections.reduce((sum, of) => sum + of.open, 0);
    const taken = wallets.connections.reduce((sum, of) => sum + of.taken, 0);
    const kinds = wallets.connections.filter((of) => of.open > 0).map((of) => `${of.open} ${of.kind}`);
    const { scripts, outpoints, tips } = wallets.subscriptions;
    const rate = requestRates.length > 0 ? requestRates[requestRates.length - 1] : 0;
    say("wallets-open", number(open));
    spark("wallets-spark", requestRates, `Requests a second: ${rounded(rate)} now`);
    rows("wallets", [
      kinds.length > 0 && ["Now", kinds.join(", ")],
      ["Since the start", number(taken)],
      ["Scripts watched", number(scripts)],
      outpoints > 0 && ["Outputs watched", number(outpoints)],
      ["Follow the tip", number(tips)],
      ["Requests", `${number(wallets.requests)} · ${rounded(rate)}/s`],
      wallets.errors > 0 && ["Answered by an error", number(wallets.errors)],
      wallets.most_within_seconds !== null && ["99 % answered within", quick(wallets.most_within_seconds)],
      ["Notifications", number(wallets.notifications)],
      wallets.refused > 0 && ["Turned away", number(wallets.refused), undefined, true],
    ]);
  }

  function drawMachine() {
    const machine = report.machine;
    const { disk_bytes: disk, disk_free_bytes: free, open_files: files, open_files_max: filesMax } = machine;
    const cache = report.cache;
    const asked = cache.hits + cache.misses;
    say("machine-memory", machine.memory_bytes === null ? "–" : bytes(machine.memory_bytes));
    spark("machine-spark", memories, `Memory: ${machine.memory_bytes === null ? "not known" : bytes(machine.memory_bytes)} now`);
    rows("machine", [
      machine.memory_peak_bytes !== null && ["At most so far", bytes(machine.memory_peak_bytes)],
      report.processor !== undefined && ["Processor", `${rounded(100 * report.processor)} % of a core`],
      ["Index", `${bytes(machine.index_folder_bytes)} in ${plural(machine.index_files, "file", "files")}`],
      free !== null && ["Disk free", `${bytes(free)} of ${bytes(disk)}`, 1 - free / disk, free < 10e9],
      cache.bytes_max > 0 && ["Cache", `${bytes(cache.bytes)} of ${bytes(cache.bytes_max)}`, cache.bytes / cache.bytes_max],
      asked > 0 && ["Answered from it", `${rounded((100 * cache.hits) / asked)} %`],
      files !== null && ["Open files", filesMax === null ? number(files) : `${number(files)} of ${number(filesMax)}`],
    ]);
  }

  let connectDrawn = "";
  function drawConnect() {
    const drawn = JSON.stringify([report.connect, report.fingerprint]);
    // Not while someone copies from it.
    if (drawn === connectDrawn) return;
    connectDrawn = drawn;
    byId("connect").replaceChildren(...report.connect.map((way) => {
      const text = way.server || way.url;
      const how = make("div", { class: "how" }, make("code", {}, text));
      const isTls = /^(tls|wss):/.test(way.url);
      const kind = way.url.startsWith("ws") ? "WebSocket, " : "";
      const reach = way.is_local ? "programs of this machine only" : "other machines too";
      const guard = isTls ? "encrypted" : "not encrypted";
      how.append(make("small", {}, way.url.startsWith("unix:") ? "socket of this machine" : `${kind}${guard}, ${reach}`));
      const copy = make("button", { class: "copy", type: "button", "aria-label": `Copy ${text}` }, "Copy");
      copy.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(text);
          copy.textContent = "Copied";
        } catch {
          copy.textContent = "Mark it to copy";
        }
        setTimeout(() => { copy.textContent = "Copy"; }, 2000);
      });
      const item = make("li", {}, how, copy);
      if (way.qr) {
        const code = draw("svg", { class: "qr", viewBox: `0 0 ${way.qr.size} ${way.qr.size}`, role: "img", "shape-rendering": "crispEdges" },
          draw("title", {}, `QR code of ${text}`), draw("path", { d: way.qr.path }));
        item.append(code);
      }
      return item;
    }));
    const hint = byId("connect-hint");
    hint.hidden = !report.connect.length || report.connect.some((way) => !way.is_local);
    if (!hint.hidden) {
      hint.replaceChildren("For wallets on other machines, start Ambra with ", make("code", {}, "--listen tls://0.0.0.0:50002"), " besides.");
    }
    byId("fingerprint").hidden = !report.fingerprint;
    say("fingerprint-text", report.fingerprint || "");
  }

  function drawWarnings() {
    byId("warnings-none").hidden = report.warnings.length > 0;
    byId("warnings").replaceChildren(...report.warnings.map((line) => {
      const time = make("time", { datetime: new Date(line.time * 1000).toISOString() }, `${span(now() - line.time)} ago`);
      const text = make("p", line.level === "error" ? { class: "is-error" } : {}, line.text);
      const times = line.times > 1 ? ` · ${number(line.times)} times` : "";
      text.append(" ", make("small", {}, `${line.level === "error" ? "error, " : ""}${line.room}${times}`));
      return make("li", {}, time, text);
    }));
  }

  function drawState() {
    const body = document.body.classList;
    let mood, text;
    if (link === "lost") {
      [mood, text] = ["is-bad", "Ambra does not answer this page; trying again"];
    } else if (!report) {
      [mood, text] = ["", "Connecting"];
    } else if (report.is_ready) {
      [mood, text] = ["is-good", "In step with your node"];
    } else if (report.stage === "first_sync") {
      [mood, text] = ["is-busy", "Building the index; wallets can connect, and wait"];
    } else if (report.stage === "waiting") {
      [mood, text] = ["is-busy", isDownloading() ? "Your node is downloading the chain" : "Waiting for your node"];
    } else if (report.node.state === "away") {
      [mood, text] = ["is-bad", sentence(report.not_ready)];
    } else {
      [mood, text] = ["is-busy", sentence(report.not_ready)];
    }
    body.remove("is-good", "is-busy", "is-bad");
    if (mood) body.add(mood);
    body.toggle("is-away", link === "lost" || (report !== null && report.node.state === "away"));
    say("state-text", text);
  }

  function sentence(text) {
    return text ? text[0].toUpperCase() + text.slice(1) : "";
  }

  function drawFoot() {
    say("version", `Ambra ${report.version}`);
    say("uptime", `running for ${span(report.now - report.started)}`);
    byId("network").hidden = !report.network;
    say("network", report.network || "");
  }

  // --- news

  function take(text) {
    before = report;
    report = JSON.parse(text);
    skew = report.now - Date.now() / 1000;
    // The clocks of the two agree to a second.
    if (Math.abs(skew) < 1.5) skew = 0;
    if (before && before.started === report.started) {
      const seconds = Math.max(1, report.now - before.now);
      keep(requestRates, Math.max(0, report.wallets.requests - before.wallets.requests) / seconds);
      const [used, was] = [report.machine.cpu_seconds, before.machine.cpu_seconds];
      if (used !== null && was !== null) report.processor = Math.max(0, used - was) / seconds;
    }
    if (report.machine.memory_bytes !== null) keep(memories, report.machine.memory_bytes);
    drawAll();
    document.documentElement.dataset.reports = Number(document.documentElement.dataset.reports || 0) + 1;
  }

  function drawAll() {
    drawState();
    if (!report) return;
    drawDial();
    drawSync();
    const isWaiting = report.stage === "waiting";
    document.body.classList.toggle("is-waiting", isWaiting);
    byId("wait-panel").hidden = !isWaiting;
    say("wait-why", sentence(report.not_ready));
    byId("wait-note").hidden = isDownloading();
    byId("wait-download").hidden = !isDownloading();
    byId("wallets-panel").hidden = isWaiting;
    byId("node-panel").hidden = isWaiting && report.node.state !== "up";
    byId("connect-panel").hidden = isWaiting && report.connect.length === 0;
    byId("mempool-panel").hidden = !report.mempool || isWaiting || report.stage === "first_sync";
    drawMempool();
    drawNode();
    drawWallets();
    drawMachine();
    drawConnect();
    drawWarnings();
    drawFoot();
  }

  let link = "new";
  function listen() {
    const events = new EventSource("/api/events");
    events.onmessage = (event) => {
      link = "live";
      take(event.data);
    };
    events.onerror = () => {
      link = "lost";
      // Refused, not broken: it will not come back by itself.
      if (events.readyState === EventSource.CLOSED) {
        events.close();
        askOnce();
        setTimeout(listen, RECONNECT_MS);
      }
      drawState();
    };
  }

  async function askOnce() {
    try {
      const answer = await fetch("/api/status");
      link = "live";
      take(await answer.text());
    } catch {
      drawState();
    }
  }

  let width = 0;
  new ResizeObserver(() => {
    if (width === document.body.clientWidth) return;
    width = document.body.clientWidth;
    drawAll();
  }).observe(document.body);
  setInterval(() => { if (report) drawDial(); }, 1000);
  drawScale(["0", "15", "30", "45"]);
  listen();
})();
