//! SVG as text: elements that are always closed, and texts that are always escaped.

use std::fmt::Write as _;

/// Light, and told apart by darkness where it is printed without colours.
const STYLE: &str = "\
text{font:11px sans-serif;fill:#333}\
.title{font-size:13px;font-weight:bold;fill:#111}\
.small{font-size:10px;fill:#666}\
.end{text-anchor:end}.middle{text-anchor:middle}\
path{fill:none}\
.grid{stroke:#e4e4e4}\
.frame{fill:none;stroke:#999}\
.series{stroke:#7f9fbf;stroke-width:1;stroke-linejoin:round}\
.floor{stroke:#1f4e79;stroke-width:1.6}\
.fit{stroke:#c00000;stroke-width:2;stroke-dasharray:7 3}\
.limit{stroke:#111;stroke-width:1.6;stroke-dasharray:2 3}\
.onset{stroke:#7030a0;stroke-width:1.4;stroke-dasharray:4 2}\
.doubt{fill:#7030a0;opacity:.12}\
.mark path{stroke:#777}.kill path{stroke:#c00000;stroke-width:1.6}\
.unknown{fill:#eee}.healthy{fill:#bfe3c0}.warming{fill:#cfe2f3}.reclaimed{fill:#8fc7c0}\
.growing{fill:#ffd966}.suspected{fill:#ed7d31}.confirmed{fill:#a00000}";

/// A picture in the making.
#[derive(Debug)]
pub struct Svg {
    text: String,
}

impl Svg {
    /// An empty picture on white.
    pub fn new(width: f64, height: f64) -> Self {
        let mut text = String::new();
        let _ = write!(
            text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\">\n<style>{STYLE}</style>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        Svg { text }
    }

    /// An empty picture as a part of a page, which gives it its style; it is as wide as there is room.
    pub fn inline(width: f64, height: f64, class: &str, label: &str) -> Self {
        let mut text = String::new();
        let label = escaped(label);
        let _ = writeln!(
            text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"{class}\" role=\"img\" \
             aria-label=\"{label}\" viewBox=\"0 0 {width:.0} {height:.0}\">"
        );
        Svg { text }
    }

    /// A text; `class` is ours.
    pub fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let text = escaped(text);
        let _ = writeln!(
            self.text,
            "<text x=\"{x:.1}\" y=\"{y:.1}\"{}>{text}</text>",
            of_class(class)
        );
    }

    /// A line from the upper edge down, with its name above, and a text that shows under the pointer.
    pub fn flag(&mut self, class: &str, [x, high, low]: [f64; 3], name: &str, hint: &str) {
        let (name, hint) = (escaped(name), escaped(hint));
        let _ = write!(
            self.text,
            "<g class=\"{class}\"><title>{hint}</title><path d=\"M{x:.1} {high:.1}V{low:.1}\"/>"
        );
        if !name.is_empty() {
            let y = high - 3.0;
            let _ = write!(
                self.text,
                "<text class=\"middle\" x=\"{x:.1}\" y=\"{y:.1}\">{name}</text>"
            );
        }
        self.text.push_str("</g>\n");
    }

    /// A path; an empty one is left out.
    pub fn path(&mut self, class: &str, steps: &str) {
        if !steps.is_empty() {
            let _ = writeln!(self.text, "<path{} d=\"{steps}\"/>", of_class(class));
        }
    }

    /// A rectangle (x, y, width, height), with a text that shows under the pointer.
    pub fn rectangle(&mut self, class: &str, place: [f64; 4], hint: Option<&str>) {
        let [x, y, width, height] = place;
        let class = of_class(class);
        let _ = write!(
            self.text,
            "<rect{class} x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"",
            width.max(0.0),
            height.max(0.0)
        );
        let _ = match hint {
            Some(hint) => writeln!(self.text, "><title>{}</title></rect>", escaped(hint)),
            None => writeln!(self.text, "/>"),
        };
    }

    /// The whole document.
    pub fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}

fn of_class(class: &str) -> String {
    if class.is_empty() {
        String::new()
    } else {
        format!(" class=\"{class}\"")
    }
}

/// Text as XML 1.0 can hold it, in elements and attributes.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            _ if character.is_control() => safe.push('\u{fffd}'),
            _ => safe.push(character),
        }
    }
    safe
}
