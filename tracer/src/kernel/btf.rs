//! A reader of BTF type data: member offsets, enumerators, function prototypes.
//!
//! Works on bytes, so that it is tested on any host. Must not guess: what is
//! not found is `None`. Format: Documentation/bpf/btf.rst.

use thiserror::Error;

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: u32 = 24;
const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FWD: u32 = 7;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_FLOAT: u32 = 16;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;
/// Nested types deeper than this are not the kernel's.
const MAX_DEPTH: usize = 16;
/// Members that are looked at for one name; `task_struct` has some hundreds. Anonymous members that hold
/// each other would be looked at for ever.
const MOST_MEMBERS: usize = 1 << 16;

/// The bytes are not BTF that this reader understands.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BtfError {
    #[error("BTF is cut short at byte {0}")]
    Truncated(usize),
    #[error("not little-endian BTF (magic {0:#06x})")]
    Magic(u16),
    #[error("type {id} has the unknown BTF kind {kind}")]
    Kind { id: usize, kind: u32 },
}

/// Parsed BTF: where each type begins.
#[derive(Debug)]
pub struct Btf<'a> {
    bytes: &'a [u8],
    strings: &'a [u8],
    /// Byte position of type `id`; entry 0 is `void`.
    types: Vec<u32>,
}

/// A parameter of a function prototype.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Param {
    /// Pointer to a struct of this name.
    StructPointer(String),
    Other,
}

struct Type {
    at: usize,
    name: u32,
    kind: u32,
    vlen: usize,
    kind_flag: bool,
    /// Size or referenced type, by kind.
    size_or_type: u32,
}

impl<'a> Btf<'a> {
    /// Indexes the types of a `/sys/kernel/btf/vmlinux` image.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let word = |at: usize| read_u32(bytes, at).ok_or(BtfError::Truncated(at));
        let magic = (word(0)? & 0xffff) as u16;
        if magic != MAGIC {
            return Err(BtfError::Magic(magic));
        }
        let header = word(4)? as usize;
        let (type_start, type_len) = (header.saturating_add(word(8)? as usize), word(12)? as usize);
        let (string_start, string_len) = (
            header.saturating_add(word(16)? as usize),
            word(20)? as usize,
        );
        let strings = bytes
            .get(string_start..string_start.saturating_add(string_len))
            .ok_or(BtfError::Truncated(string_start))?;
        let end = type_start.saturating_add(type_len);
        if end > bytes.len() {
            return Err(BtfError::Truncated(bytes.len()));
        }
        let mut btf = Btf {
            bytes,
            strings,
            types: vec![0],
        };
        let mut at = type_start;
        while at < end {
            btf.types.push(at as u32);
            let id = btf.types.len() - 1;
            let ty = btf.type_at(at).ok_or(BtfError::Truncated(at))?;
            at = at + 12 + btf.tail(&ty).ok_or(BtfError::Kind { id, kind: ty.kind })?;
        }
        Ok(btf)
    }

    /// Bytes from the start of `strukt` to the member at `path`, for example
    /// `rss_stat[MM_ANONPAGES].count`. Steps into anonymous members; an index may
    /// be an enumerator. `None` if this kernel has no such path.
    pub fn offset_of(&self, strukt: &str, path: &str) -> Option<u32> {
        let mut id = self.find(strukt, |kind| kind == KIND_STRUCT)?;
        let mut offset: u32 = 0;
        for step in path.split('.') {
            let (name, index) = match step.split_once('[') {
                Some((name, index)) => (name, Some(index.strip_suffix(']')?)),
                None => (step, None),
            };
            let (bits, member) = self.member(id, name, 0, &mut 0)?;
            if bits % 8 != 0 {
                return None;
            }
            offset = u32::checked_add(offset, bits / 8)?;
            id = member;
            if let Some(index) = index {
                let array = self.resolve(id)?;
                if array.kind != KIND_ARRAY {
                    return None;
                }
                let element = read_u32(self.bytes, array.at + 12)?;
                let length = read_u32(self.bytes, array.at + 20)?;
                let index = index.parse().ok().or_else(|| self.enumerator(index))?;
                if index >= length {
                    return None;
                }
                offset = offset.checked_add(index.checked_mul(self.size(element, 0)?)?)?;
                id = element;
            }
        }
        Some(offset)
    }

    /// Bytes of a struct.
    pub fn size_of(&self, strukt: &str) -> Option<u32> {
        self.size(self.find(strukt, |kind| kind == KIND_STRUCT)?, 0)
    }

    /// Value of an enumerator of any enum.
    pub fn enumerator(&self, name: &str) -> Option<u32> {
        let wanted = self.string_offset(name)?;
        (1..self.types.len()).find_map(|id| {
            let ty = self.by_id(id as u32)?;
            let stride = match ty.kind {
                KIND_ENUM => 8,
                KIND_ENUM64 => 12,
                _ => return None,
            };
            (0..ty.vlen).find_map(|index| {
                let at = ty.at + 12 + index * stride;
                (read_u32(self.bytes, at)? == wanted)
                    .then(|| read_u32(self.bytes, at + 4))
                    .flatten()
            })
        })
    }

    /// Whether BTF describes a kernel function of this name.
    pub fn has_function(&self, name: &str) -> bool {
        self.find(name, |kind| kind == KIND_FUNC).is_some()
    }

    /// BTF in which every type has its id but only the named functions and typedefs are told;
    /// the others are placeholders. A hundredth of the size, and enough to attach by name.
    pub fn only(&self, names: &[String]) -> Vec<u8> {
        let wanted: Vec<(u32, &str)> = names
            .iter()
            .filter_map(|name| Some((self.string_offset(name)?, name.as_str())))
            .collect();
        let mut strings = vec![0];
        let mut types = Vec::with_capacity(self.types.len() * 12);
        for id in 1..self.types.len() as u32 {
            let kept = self.by_id(id).and_then(|ty| {
                let named = matches!(ty.kind, KIND_FUNC | KIND_TYPEDEF);
                let (_, name) = wanted.iter().find(|(offset, _)| *offset == ty.name)?;
                named.then_some((ty, *name))
            });
            let words = match kept {
                Some((ty, name)) => {
                    let at = strings.len() as u32;
                    strings.extend_from_slice(name.as_bytes());
                    strings.push(0);
                    [at, ty.kind << 24 | ty.vlen as u32, ty.size_or_type]
                }
                None => [0, KIND_FWD << 24, 0],
            };
            types.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        }
        let (types_len, strings_len) = (types.len() as u32, strings.len() as u32);
        let header = [
            u32::from(MAGIC) | 1 << 16,
            HEADER_LEN,
            0,
            types_len,
            types_len,
            strings_len,
        ];
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.append(&mut types);
        bytes.append(&mut strings);
        bytes
    }

    /// Parameters of a tracepoint as a BPF program sees them; `None` if it does not exist.
    pub fn tracepoint_params(&self, name: &str) -> Option<Vec<Param>> {
        let typedef = self.find(&format!("btf_trace_{name}"), |kind| kind == KIND_TYPEDEF)?;
        let pointer = self.resolve(typedef)?;
        let proto = self.resolve(pointer.size_or_type)?;
        if pointer.kind != KIND_PTR || proto.kind != KIND_FUNC_PROTO {
            return None;
        }
        // The first parameter is the tracepoint's own data.
        (1..proto.vlen)
            .map(|index| {
                let id = read_u32(self.bytes, proto.at + 12 + index * 8 + 4)?;
                Some(self.param(id))
            })
            .collect()
    }

    fn param(&self, id: u32) -> Param {
        let target = self
            .resolve(id)
            .filter(|ty| ty.kind == KIND_PTR)
            .and_then(|pointer| self.resolve(pointer.size_or_type))
            .filter(|ty| ty.kind == KIND_STRUCT)
            .and_then(|strukt| self.string(strukt.name));
        match target {
            Some(name) => Param::StructPointer(name.to_owned()),
            None => Param::Other,
        }
    }

    /// Bit offset and type of a member, looked for in anonymous members too.
    fn member(&self, id: u32, name: &str, depth: usize, seen: &mut usize) -> Option<(u32, u32)> {
        let ty = self.resolve(id)?;
        if !matches!(ty.kind, KIND_STRUCT | KIND_UNION) || depth > MAX_DEPTH {
            return None;
        }
        for index in 0..ty.vlen {
            *seen += 1;
            if *seen > MOST_MEMBERS {
                return None;
            }
            let at = ty.at + 12 + index * 12;
            let member_name = read_u32(self.bytes, at)?;
            let member_type = read_u32(self.bytes, at + 4)?;
            let raw = read_u32(self.bytes, at + 8)?;
            let (bits, bitfield) = if ty.kind_flag {
                (raw & 0x00ff_ffff, raw >> 24)
            } else {
                (raw, 0)
            };
            if member_name == 0 {
                if let Some((inner, found)) = self.member(member_type, name, depth + 1, seen) {
                    return Some((bits.checked_add(inner)?, found));
                }
            } else if bitfield == 0 && self.string(member_name) == Some(name) {
                return Some((bits, member_type));
            }
        }
        None
    }

    fn size(&self, id: u32, depth: usize) -> Option<u32> {
        let ty = self.resolve(id)?;
        match ty.kind {
            KIND_INT | KIND_STRUCT | KIND_UNION | KIND_ENUM | KIND_ENUM64 | KIND_FLOAT => {
                Some(ty.size_or_type)
            }
            KIND_PTR => Some(8),
            KIND_ARRAY if depth < MAX_DEPTH => {
                let element = self.size(read_u32(self.bytes, ty.at + 12)?, depth + 1)?;
                element.checked_mul(read_u32(self.bytes, ty.at + 20)?)
            }
            _ => None,
        }
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, id: u32) -> Option<Type> {
        let mut ty = self.by_id(id)?;
        for _ in 0..MAX_DEPTH {
            match ty.kind {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    ty = self.by_id(ty.size_or_type)?;
                }
                _ => return Some(ty),
            }
        }
        None
    }

    fn find(&self, name: &str, kind: impl Fn(u32) -> bool) -> Option<u32> {
        let wanted = self.string_offset(name)?;
        (1..self.types.len() as u32).find(|&id| {
            self.by_id(id)
                .is_some_and(|ty| ty.name == wanted && kind(ty.kind))
        })
    }

    fn by_id(&self, id: u32) -> Option<Type> {
        if id == 0 {
            return None;
        }
        self.type_at(*self.types.get(id as usize)? as usize)
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let info = read_u32(self.bytes, at + 4)?;
        Some(Type {
            at,
            name: read_u32(self.bytes, at)?,
            kind: (info >> 24) & 0x1f,
            vlen: (info & 0xffff) as usize,
            kind_flag: info >> 31 != 0,
            size_or_type: read_u32(self.bytes, at + 8)?,
        })
    }

    /// Bytes that follow the common part of a type.
    fn tail(&self, ty: &Type) -> Option<usize> {
        Some(match ty.kind {
            KIND_PTR | KIND_FWD | KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT
            | KIND_FUNC | KIND_FLOAT | KIND_TYPE_TAG => 0,
            KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => ty.vlen * 12,
            KIND_ENUM | KIND_FUNC_PROTO => ty.vlen * 8,
            _ => return None,
        })
    }

    fn string(&self, offset: u32) -> Option<&'a str> {
        let tail = self.strings.get(offset as usize..)?;
        let end = tail.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(&tail[..end]).ok()
    }

    /// BTF stores each string once: its offset identifies the name.
    fn string_offset(&self, name: &str) -> Option<u32> {
        let needle = [&[0], name.as_bytes(), &[0]].concat();
        let at = memchr::memmem::find(self.strings, &needle)?;
        Some(at as u32 + 1)
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types in order, with ids from 1.
    fn image(types: &[&[u32]], strings: &[u8]) -> Vec<u8> {
        let types: Vec<u8> = types
            .iter()
            .flat_map(|ty| ty.iter().flat_map(|word| word.to_le_bytes()))
            .collect();
        let header = [
            u32::from(MAGIC) | 1 << 16,
            24,
            0,
            types.len() as u32,
            types.len() as u32,
            strings.len() as u32,
        ];
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    const fn info(kind: u32, vlen: u32) -> u32 {
        kind << 24 | vlen
    }

    /// struct s { long a; struct { long b[3]; }; }; enum { TWO = 2 };
    fn sample() -> Vec<u8> {
        let strings = b"\0s\0a\0b\0TWO\0long\0";
        image(
            &[
                &[12, info(KIND_INT, 0), 8, 64],
                &[0, info(KIND_ARRAY, 0), 0, 1, 1, 3],
                &[0, info(KIND_STRUCT, 1), 24, 5, 2, 0],
                &[1, info(KIND_STRUCT, 2), 32, 3, 1, 0, 0, 3, 64],
                &[0, info(KIND_ENUM, 1), 4, 7, 2],
            ],
            strings,
        )
    }

    #[test]
    fn members_are_found_through_anonymous_structs_and_enumerator_indices() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(btf.offset_of("s", "a"), Some(0));
        assert_eq!(btf.offset_of("s", "b[1]"), Some(16));
        assert_eq!(btf.offset_of("s", "b[TWO]"), Some(24));
    }

    #[test]
    fn what_the_kernel_does_not_have_is_none() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).unwrap();
        for path in ["c", "a.x", "b[3]", "b[THREE]", "a[0]", "b[", ""] {
            assert_eq!(btf.offset_of("s", path), None, "{path}");
        }
        assert_eq!(btf.offset_of("t", "a"), None);
        assert!(!btf.has_function("s"));
        assert_eq!(btf.tracepoint_params("s"), None);
    }

    #[test]
    fn a_reduced_image_keeps_ids_and_only_the_names_asked_for() {
        let strings = b"\0f\0t\0g\0";
        let bytes = image(
            &[
                &[0, info(KIND_STRUCT, 0), 0],
                &[1, info(KIND_FUNC, 0), 1],
                &[3, info(KIND_TYPEDEF, 0), 1],
                &[5, info(KIND_FUNC, 0), 1],
            ],
            strings,
        );
        let reduced = Btf::parse(&bytes)
            .unwrap()
            .only(&["f".into(), "t".into(), "x".into()]);
        let reduced = Btf::parse(&reduced).unwrap();
        assert_eq!(reduced.find("f", |kind| kind == KIND_FUNC), Some(2));
        assert_eq!(reduced.find("t", |kind| kind == KIND_TYPEDEF), Some(3));
        assert!(!reduced.has_function("g"));
    }

    #[test]
    fn anonymous_members_that_hold_each_other_end() {
        let member = [0, 1, 0];
        let strukt: Vec<u32> = [1, info(KIND_STRUCT, 64), 8]
            .into_iter()
            .chain(member.repeat(64))
            .collect();
        let bytes = image(&[&strukt], b"\0s\0a\0");
        assert_eq!(Btf::parse(&bytes).unwrap().offset_of("s", "a"), None);
    }

    #[test]
    fn any_cut_or_flipped_byte_is_an_error_or_a_miss_never_a_panic() {
        let bytes = sample();
        for cut in 0..bytes.len() {
            if let Ok(btf) = Btf::parse(&bytes[..cut]) {
                btf.offset_of("s", "b[TWO]");
            }
        }
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0xff;
            if let Ok(btf) = Btf::parse(&bytes) {
                btf.offset_of("s", "b[TWO]");
                btf.enumerator("TWO");
                btf.tracepoint_params("s");
            }
        }
    }
}
