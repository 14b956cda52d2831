//! C, C++ and Rust with their symbols.

use super::*;

#[test]
fn functions_of_c_have_names_and_lines() {
    let directory = temporary();
    let path = compile(directory.path(), "grow", C, &["-g", "-O0"]);
    let (module, mut symbols) = (module(&path), symbols());
    for function in ["hidden_grow", "shown_grow", "main"] {
        let bytes = bytes_of(&path, function);
        for frames in resolve(&mut symbols, &module, &bytes.collect::<Vec<_>>()) {
            let outermost = frames.last().unwrap();
            assert_eq!(outermost.function.as_deref(), Some(function));
            assert_eq!(outermost.module, "grow");
            let (file, line) = outermost.source.clone().unwrap();
            assert!(file.ends_with("/grow.c"), "{file}");
            assert!((4..=20).contains(&line), "{line}");
        }
    }
    assert_eq!(symbols.losses(), Losses::default());
}

#[test]
fn inlined_functions_come_before_the_function_that_they_are_in() {
    let directory = temporary();
    let path = compile(directory.path(), "grow", C, &["-g", "-O2"]);
    let (module, mut symbols) = (module(&path), symbols());
    let bytes: Vec<_> = bytes_of(&path, "shown_grow").collect();
    let mut inlined = 0;
    for frames in resolve(&mut symbols, &module, &bytes) {
        let names: Vec<_> = frames
            .iter()
            .map(|frame| frame.function.as_deref().unwrap())
            .collect();
        match names[..] {
            ["shown_grow"] => {}
            ["inlined_grow", "shown_grow"] => {
                inlined += 1;
                let line = |frame: &Frame| frame.source.as_ref().map(|(_, line)| *line);
                assert!((8..=13).contains(&line(&frames[0]).unwrap()));
                assert_eq!(line(&frames[1]), Some(16), "of the call");
            }
            _ => panic!("{names:?}"),
        }
    }
    assert!(inlined > 0);
}

#[test]
fn names_of_cpp_are_demangled() {
    let directory = temporary();
    let source = r#"
        #include <vector>
        namespace shop {
        struct Cart {
            std::vector<int> items;
            __attribute__((noinline)) void add(int item) { items.push_back(item); }
        };
        }
        namespace { __attribute__((noinline)) int count(const shop::Cart &cart) { return cart.items.size(); } }
        int main() { shop::Cart cart; cart.add(1); return count(cart); }
    "#;
    fs::write(directory.path().join("shop.cc"), source).unwrap();
    for flags in [&["-g", "-O1"][..], &["-O1"]] {
        let arguments = [&["-o", "shop", "shop.cc"], flags].concat();
        run("g++", &arguments, directory.path());
        let path = directory.path().join("shop");
        let (module, mut symbols) = (module(&path), symbols());
        let mut name = |mangled| name(&mut symbols, &module, &path, mangled).unwrap();
        assert_eq!(name("_ZN4shop4Cart3addEi"), "shop::Cart::add(int)");
        let count = name("_ZN12_GLOBAL__N_15countERKN4shop4CartE");
        assert!(count.contains("count"), "{count}");
        assert_eq!(name("main"), "main");
    }
}

#[test]
fn names_of_rust_are_demangled() {
    let directory = temporary();
    let source = "
        pub mod store {
            #[inline(never)]
            pub fn keep(n: usize) -> Vec<u8> { vec![1; n] }
        }
        fn main() { println!(\"{}\", store::keep(std::env::args().count()).len()); }
    ";
    fs::write(directory.path().join("leaky.rs"), source).unwrap();
    for debug in ["full", "line-tables-only", "none"] {
        let debug = format!("debuginfo={debug}");
        let usual = ["-C", &debug, "leaky.rs"];
        let v0 = ["-C", "symbol-mangling-version=v0", "-C", &debug, "leaky.rs"];
        for flags in [&usual[..], &v0] {
            run("rustc", flags, directory.path());
            let path = directory.path().join("leaky");
            let data = fs::read(&path).unwrap();
            let file = object::File::parse(&*data).unwrap();
            let mangled = file
                .symbols()
                .filter_map(|symbol| symbol.name().ok())
                .find(|name| name.contains("5store4keep"));
            let (module, mut symbols) = (module(&path), symbols());
            let name = name(&mut symbols, &module, &path, mangled.unwrap());
            assert_eq!(name.as_deref(), Some("leaky::store::keep"), "{flags:?}");
        }
    }
}

#[test]
fn without_dwarf_symbols_name_the_bytes_that_they_cover_and_no_others() {
    let directory = temporary();
    let path = compile(directory.path(), "grow", C, &["-O2", "-static"]);
    let data = fs::read(&path).unwrap();
    let file = object::File::parse(&*data).unwrap();
    let segment = file
        .segments()
        .find(|segment| segment.permissions().executable())
        .unwrap();
    let (start, length) = segment.file_range();
    let offsets: Vec<_> = (start..start + length).step_by(7).collect();
    let functions: Vec<_> = file
        .symbols()
        .filter(|symbol| {
            let kinds = [object::SymbolKind::Text, object::SymbolKind::Unknown];
            symbol.size() > 0 && kinds.contains(&symbol.kind())
        })
        .map(|symbol| {
            let start = offset_of(&file, symbol.address());
            (start, symbol.size(), symbol.name().unwrap())
        })
        .filter_map(|(start, size, name)| Some((start?..start? + size, name)))
        .collect();
    let (mut named, mut unnamed) = (0, 0);
    for (frames, offset) in resolve(&mut symbols(), &module(&path), &offsets)
        .iter()
        .zip(&offsets)
    {
        let mut covering = functions
            .iter()
            .filter(|(bytes, _)| bytes.contains(offset))
            .map(|(_, name)| *name);
        match frames[0].function.as_deref() {
            Some(name) => {
                named += 1;
                assert!(covering.any(|other| other == name), "{name} at {offset:x}");
            }
            None => {
                unnamed += 1;
                assert_eq!(covering.next(), None, "at {offset:x}");
            }
        }
    }
    assert!(named > 1000 && unnamed > 10, "{named} {unnamed}");
}

/// As in the C library.
#[test]
fn a_function_with_aliases_has_the_one_that_people_call() {
    let directory = temporary();
    let source = "
        volatile int sink;
        __attribute__((noinline)) void __private_grow(int n) { sink += n; sink *= n; }
        void grow(int) __attribute__((alias(\"__private_grow\")));
        int main(void) { grow(3); return 0; }
    ";
    for flags in [&["-g", "-O1"][..], &["-O1"]] {
        let path = compile(directory.path(), "alias", source, flags);
        let name = name(&mut symbols(), &module(&path), &path, "__private_grow");
        assert_eq!(name.as_deref(), Some("grow"));
    }
}

/// The linker leaves the DWARF of what it throws away, at address 0: where a function as large as
/// this one seems to cover all others.
#[test]
fn functions_that_were_thrown_away_name_nothing() {
    let directory = temporary();
    let dead = "void dead(void) { __asm__(\".fill 100000, 1, 0x90\"); }";
    compile(directory.path(), "dead.o", dead, &["-g", "-O2", "-c"]);
    let flags = ["dead.o", "-g", "-O2", "-Wl,--gc-sections"];
    let path = compile(directory.path(), "grow", C, &flags);
    let (module, mut symbols) = (module(&path), symbols());
    for function in ["hidden_grow", "shown_grow", "main", "_start"] {
        let bytes: Vec<_> = bytes_of(&path, function).collect();
        for frames in resolve(&mut symbols, &module, &bytes) {
            assert_eq!(frames.last().unwrap().function.as_deref(), Some(function));
            assert!(
                !frames
                    .iter()
                    .any(|frame| frame.function.as_deref() == Some("dead"))
            );
        }
    }
}

#[test]
fn data_and_what_lies_behind_the_file_has_no_name() {
    let directory = temporary();
    let path = compile(directory.path(), "grow", C, &["-g", "-O2"]);
    let length = fs::metadata(&path).unwrap().len();
    let offsets = [0, 16, length - 1, length, length + 1, u64::MAX];
    for frames in resolve(&mut symbols(), &module(&path), &offsets) {
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].function, None);
        assert_eq!(frames[0].source, None);
    }
}

#[test]
fn what_was_named_is_not_asked_again() {
    let directory = temporary();
    let path = compile(directory.path(), "grow", C, &["-g", "-O2"]);
    let (module, mut symbols) = (module(&path), symbols());
    assert_eq!(symbols.worker_pid(), None);
    let offsets: Vec<_> = bytes_of(&path, "shown_grow").collect();
    let first = resolve(&mut symbols, &module, &offsets);
    let worker = symbols.worker_pid().unwrap();
    symbols.rest();
    assert!(!Path::new(&format!("/proc/{worker}")).exists());
    assert_eq!(resolve(&mut symbols, &module, &offsets), first);
    assert_eq!(symbols.worker_pid(), None);
}

#[test]
fn the_order_of_places_stays_and_unknown_modules_are_told() {
    let directory = temporary();
    let path = compile(directory.path(), "grow", C, &["-g", "-O2"]);
    let module = module(&path);
    let functions = ["shown_grow", "main", "hidden_grow"];
    let starts = functions.map(|function| bytes_of(&path, function).start);
    let places: Vec<_> = (0..9000)
        .map(|index| Place::File {
            module: ModuleId(1 + u32::from(index % 5 == 4)),
            offset: starts[index % 3],
        })
        .collect();
    let named = symbols().resolve(&places, &|id| (id == module.id).then(|| module.clone()));
    assert_eq!(named.len(), places.len());
    for (index, frames) in named.iter().enumerate() {
        let outermost = frames.last().unwrap();
        if index % 5 == 4 {
            assert_eq!(
                (&*outermost.module, &outermost.function),
                ("[unknown]", &None)
            );
        } else {
            assert_eq!(outermost.function.as_deref(), Some(functions[index % 3]));
        }
    }
}

#[test]
fn it_may_move_to_another_thread() {
    fn moves<T: Send>() {}
    moves::<Symbols>();
}
