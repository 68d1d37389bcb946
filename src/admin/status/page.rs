//! The page: one document that holds all it needs, and the policy that lets it use nothing else.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

pub const FAVICON: &str = include_str!("page/favicon.svg");

const HTML: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/page.js");

/// Where style and script go in the document.
const STYLE_PLACE: &str = "/* style.css */";
const SCRIPT_PLACE: &str = "/* page.js */";

static PAGE: LazyLock<String> = LazyLock::new(|| {
    HTML.replacen(STYLE_PLACE, STYLE, 1)
        .replacen(SCRIPT_PLACE, SCRIPT, 1)
});

/// # Security
/// Scripts and styles run by the hash of their text (Content Security Policy 3): nothing that found its way into
/// the document otherwise would.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
});

pub fn html() -> &'static str {
    &PAGE
}

pub fn policy() -> &'static str {
    &POLICY
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands between the element's tags, each of which is there once.
    fn element(name: &str) -> &'static str {
        let (_, rest) = html().split_once(&format!("<{name}>")).unwrap();
        let (inside, rest) = rest.split_once(&format!("</{name}>")).unwrap();
        assert!(!rest.contains(&format!("<{name}")), "one {name}");
        inside
    }

    #[test]
    fn the_policy_names_the_style_and_the_script_of_the_page() {
        for (name, source) in [("style", STYLE), ("script", SCRIPT)] {
            assert_eq!(element(name), source);
            let hash = STANDARD.encode(Sha256::digest(element(name)));
            assert!(policy().contains(&format!("{name}-src 'sha256-{hash}'")));
        }
    }

    #[test]
    fn the_page_names_nothing_outside_of_itself() {
        // The names of SVG's and XML's vocabularies are no addresses.
        let text = html().replace("http://www.w3.org/2000/svg", "");
        for outside in [
            "http:",
            "https:",
            "//cdn",
            "@import",
            "url(",
            "<link rel=\"stylesheet",
        ] {
            assert!(!text.contains(outside), "{outside}");
        }
        // The policy allows no style but the one.
        assert!(!text.contains(" style=\"") && !text.contains(" onclick="));
    }
}
