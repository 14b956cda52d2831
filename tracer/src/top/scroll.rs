//! A position in a text that is longer than its room. Pure.

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scroll {
    at: usize,
    lines: usize,
    page: usize,
}

impl Scroll {
    /// There are `lines`, and room for `page` of them.
    pub fn fit(&mut self, lines: usize, page: usize) {
        self.lines = lines;
        self.page = page;
        self.to(self.at);
    }

    pub fn step(&mut self, by: isize) {
        self.to(self.at.saturating_add_signed(by));
    }

    /// To a line, or the last that fills the page.
    pub fn to(&mut self, line: usize) {
        self.at = line.min(self.lines.saturating_sub(self.page));
    }

    /// So far that a line is on the page.
    pub fn show(&mut self, line: usize) {
        let first = (line + 1).saturating_sub(self.page.max(1));
        self.to(self.at.clamp(first, line.max(first)));
    }

    /// The first line on the page.
    pub fn at(&self) -> usize {
        self.at
    }

    pub fn page(&self) -> usize {
        self.page.max(1)
    }

    /// Whether there is more below.
    pub fn has_more(&self) -> bool {
        self.at + self.page < self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_leaves_the_text() {
        let mut scroll = Scroll::default();
        scroll.fit(10, 4);
        scroll.step(100);
        assert_eq!((scroll.at(), scroll.has_more()), (6, false));
        scroll.step(-1);
        assert!(scroll.has_more());
        scroll.fit(2, 4);
        assert_eq!(scroll.at(), 0);
        scroll.step(-5);
        assert_eq!(scroll.at(), 0);
    }
}
