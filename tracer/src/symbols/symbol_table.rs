//! Which function symbol of an ELF file covers an address.
//!
//! Nearest preceding symbols are no answer: what a stripped file exports says nothing of the code
//! between. Only symbols with a size count, and only for the bytes that they cover.

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind};

/// Symbols that are looked at for one address; more overlap only in files made to be slow.
const MOST_OVERLAPS: usize = 256;

/// The function symbols of some ELF files, by address.
#[derive(Debug, Default)]
pub struct SymbolTable {
    /// By start, then so that the best of those with the same start is last.
    symbols: Vec<Symbol>,
    /// A `.symtab`, which has every function, not only what is exported.
    complete: bool,
}

#[derive(Debug)]
struct Symbol {
    start: u64,
    end: u64,
    /// Largest end of this and all before.
    reach: u64,
    /// Lower is better.
    rank: u8,
    name: &'static [u8],
}

impl SymbolTable {
    /// Adds the symbols of `file`: of `.symtab`, or of `.dynsym` if that has none.
    pub fn add(&mut self, file: &object::File<'static>) {
        let before = self.symbols.len();
        for symbol in file.symbols() {
            self.add_symbol(file, &symbol);
        }
        if self.symbols.len() > before {
            self.complete = true;
        } else {
            for symbol in file.dynamic_symbols() {
                self.add_symbol(file, &symbol);
            }
        }
        self.symbols
            .sort_unstable_by(|a, b| (a.start, b.rank, b.name).cmp(&(b.start, a.rank, a.name)));
        self.symbols.shrink_to_fit();
        let mut reach = 0;
        for symbol in &mut self.symbols {
            reach = symbol.end.max(reach);
            symbol.reach = reach;
        }
    }

    fn add_symbol<'f>(
        &mut self,
        file: &'f object::File<'static>,
        symbol: &object::Symbol<'static, 'f>,
    ) {
        let size = symbol.size();
        if size == 0 || symbol.is_undefined() {
            return;
        }
        // Hand-written assembly often leaves out the type.
        let code = match symbol.kind() {
            SymbolKind::Text => true,
            SymbolKind::Unknown => symbol
                .section_index()
                .and_then(|index| file.section_by_index(index).ok())
                .is_some_and(|section| section.kind() == SectionKind::Text),
            _ => false,
        };
        let (Some(end), true) = (symbol.address().checked_add(size), code) else {
            return;
        };
        let Ok(name) = symbol.name_bytes() else {
            return;
        };
        if name.is_empty() {
            return;
        }
        let linkage = if symbol.is_local() {
            64
        } else if symbol.is_weak() {
            32
        } else {
            0
        };
        let underscores = name.iter().take_while(|byte| **byte == b'_').count();
        self.symbols.push(Symbol {
            start: symbol.address(),
            end,
            reach: 0,
            // Of aliases the public one that people call: `malloc`, not `__libc_malloc`. What C++
            // and Rust mangle all starts with one or two underscores.
            rank: linkage + u8::try_from(underscores.min(16)).unwrap_or(16),
            name,
        });
    }

    /// Whether every function of the file should be here.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The innermost symbol that covers `address`.
    pub fn covering(&self, address: u64) -> Option<&'static [u8]> {
        self.all_covering(address).next()
    }

    /// Symbols that cover `address`, the innermost first.
    pub fn all_covering(&self, address: u64) -> impl Iterator<Item = &'static [u8]> {
        let after = self
            .symbols
            .partition_point(|symbol| symbol.start <= address);
        self.symbols
            .get(..after)
            .unwrap_or_default()
            .iter()
            .rev()
            .take(MOST_OVERLAPS)
            .take_while(move |symbol| address < symbol.reach)
            .filter(move |symbol| address < symbol.end)
            .map(|symbol| symbol.name)
    }
}
