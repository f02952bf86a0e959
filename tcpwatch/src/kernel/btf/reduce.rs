//! Writes a copy of BTF with little in it: kernels to test against fit into the repository.
//!
//! A structure keeps its name, its size and, at their offsets, the members on the paths that were asked for; the others
//! go. A pointer among the members points to `void`. Functions and tracepoints keep the types of their arguments, of
//! structures behind pointers the name alone. The result is valid BTF, for `bpftool btf dump file` as for [`Btf`].

use super::{
    Btf, DEPTH, KIND_ARRAY, KIND_CONST, KIND_ENUM, KIND_ENUM64, KIND_FLOAT, KIND_FUNC, KIND_FUNC_PROTO,
    KIND_FWD, KIND_INT, KIND_PTR, KIND_STRUCT, KIND_TYPE_TAG, KIND_TYPEDEF, KIND_UNION, TYPE_BYTES, Type,
    assemble, tracepoint_type,
};
use anyhow::{Context, Result, ensure};
use std::collections::{HashMap, HashSet};

/// What a reduced copy keeps. What the kernel lacks, the copy lacks. All names must have been given to [`Btf::parse`].
pub struct Keep<'a> {
    /// Structures, each with a path as for [`Btf::offset_of`].
    pub fields: &'a [(&'a str, &'a str)],
    pub enums: &'a [&'a str],
    pub functions: &'a [&'a str],
    pub tracepoints: &'a [&'a str],
}

impl Btf {
    /// The reduced copy.
    pub fn reduce(&self, keep: &Keep<'_>) -> Result<Vec<u8>> {
        let mut writer = Writer::new(self);
        for (structure, path) in keep.fields {
            let mut trail = Vec::new();
            if self.walk(structure, path, &mut trail).is_some() {
                writer.members.extend(trail);
            }
        }
        writer.enums = keep.enums.iter().filter_map(|name| self.id(KIND_ENUM, name)).collect();
        for (structure, _) in keep.fields {
            if let Some(id) = self.id(KIND_STRUCT, structure) {
                writer.value(id, 0).with_context(|| format!("cannot copy `struct {structure}`"))?;
            }
        }
        for name in keep.enums {
            if let Some(id) = self.id(KIND_ENUM, name) {
                writer.value(id, 0).with_context(|| format!("cannot copy `enum {name}`"))?;
            }
        }
        for name in keep.functions {
            if let Some(function) = self.by_name(KIND_FUNC, name) {
                let proto = writer.proto(function.other).with_context(|| format!("cannot copy `{name}`"))?;
                // Its count of entries says whether it is static.
                writer.add(name, KIND_FUNC, false, function.entries, proto, &[]);
            }
        }
        for name in keep.tracepoints {
            let name = tracepoint_type(name);
            if let Some(typedef) = self.by_name(KIND_TYPEDEF, &name) {
                let copied = self.resolve(typedef.other).and_then(|pointer| writer.proto(pointer.other));
                let proto = copied.with_context(|| format!("cannot copy `{name}`"))?;
                let pointer = writer.add("", KIND_PTR, false, 0, proto, &[]);
                writer.add(&name, KIND_TYPEDEF, false, 0, pointer, &[]);
            }
        }
        writer.finish()
    }

    fn id(&self, kind: u32, name: &str) -> Option<u32> {
        self.index.get(&(kind, name.to_owned())).copied()
    }
}

struct Writer<'a> {
    btf: &'a Btf,
    /// Members to keep, by their position.
    members: HashSet<usize>,
    /// Enums whose values are kept.
    enums: HashSet<u32>,
    types: Vec<u8>,
    count: u32,
    strings: Vec<u8>,
    string_offsets: HashMap<String, u32>,
    /// Copies by the original's number: by value, and as an argument or behind an argument's pointer.
    values: HashMap<u32, u32>,
    pointees: HashMap<u32, u32>,
    /// The pointer to `void`.
    pointer: Option<u32>,
}

impl<'a> Writer<'a> {
    fn new(btf: &'a Btf) -> Self {
        Self {
            btf,
            members: HashSet::new(),
            enums: HashSet::new(),
            types: Vec::new(),
            count: 0,
            strings: vec![0],
            string_offsets: HashMap::from([(String::new(), 0)]),
            values: HashMap::from([(0, 0)]),
            pointees: HashMap::from([(0, 0)]),
            pointer: None,
        }
    }

    fn add(&mut self, name: &str, kind: u32, flag: bool, entries: usize, other: u32, tail: &[u32]) -> u32 {
        let name = self.string(name);
        let info = u32::from(flag) << 31 | kind << 24 | entries as u32;
        for word in [name, info, other].iter().chain(tail) {
            self.types.extend(word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }

    fn string(&mut self, text: &str) -> u32 {
        if let Some(at) = self.string_offsets.get(text) {
            return *at;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        self.string_offsets.insert(text.to_owned(), at);
        at
    }

    fn words(&self, ty: Type, count: usize) -> Option<Vec<u32>> {
        (0..count).map(|i| self.btf.word(ty.at + TYPE_BYTES + i * 4)).collect()
    }

    /// Copies a type as members have it.
    fn value(&mut self, id: u32, depth: u32) -> Option<u32> {
        if let Some(copy) = self.values.get(&id) {
            return Some(*copy);
        }
        if depth > DEPTH {
            return None;
        }
        let ty = self.btf.by_id(id)?;
        let name = self.btf.string(ty.name);
        let copy = match ty.kind {
            KIND_PTR => match self.pointer {
                Some(copy) => copy,
                None => {
                    let copy = self.add("", KIND_PTR, false, 0, 0, &[]);
                    self.pointer = Some(copy);
                    copy
                }
            },
            KIND_STRUCT | KIND_UNION => {
                let mut members = Vec::new();
                for at in (0..ty.entries).map(|i| ty.at + TYPE_BYTES + i * 12) {
                    if self.members.contains(&at) {
                        let own = self.btf.string(self.btf.word(at)?);
                        let copy = self.value(self.btf.word(at + 4)?, depth + 1)?;
                        members.extend([self.string(own), copy, self.btf.word(at + 8)?]);
                    }
                }
                self.add(name, ty.kind, ty.bitfields, members.len() / 3, ty.other, &members)
            }
            KIND_ARRAY => {
                let words = self.words(ty, 3)?;
                let tail = [self.value(words[0], depth + 1)?, self.value(words[1], depth + 1)?, words[2]];
                self.add("", KIND_ARRAY, false, 0, 0, &tail)
            }
            KIND_ENUM | KIND_ENUM64 => {
                let stride = if ty.kind == KIND_ENUM { 2 } else { 3 };
                let entries = if self.enums.contains(&id) { ty.entries } else { 0 };
                let mut words = self.words(ty, entries * stride)?;
                for name in words.iter_mut().step_by(stride) {
                    *name = self.string(self.btf.string(*name));
                }
                self.add(name, ty.kind, ty.bitfields, entries, ty.other, &words)
            }
            KIND_INT => {
                let words = self.words(ty, 1)?;
                self.add(name, KIND_INT, ty.bitfields, 0, ty.other, &words)
            }
            KIND_FLOAT | KIND_FWD => self.add(name, ty.kind, ty.bitfields, 0, ty.other, &[]),
            KIND_TYPEDEF | KIND_CONST => {
                let other = self.value(ty.other, depth + 1)?;
                self.add(name, ty.kind, false, 0, other, &[])
            }
            KIND_FUNC | KIND_FUNC_PROTO => return None,
            // Tags and the qualifiers that change nothing about the layout.
            _ => self.value(ty.other, depth + 1)?,
        };
        self.values.insert(id, copy);
        Some(copy)
    }

    fn proto(&mut self, id: u32) -> Option<u32> {
        let proto = self.btf.resolve(id).filter(|proto| proto.kind == KIND_FUNC_PROTO)?;
        let mut words = self.words(proto, proto.entries * 2)?;
        for argument in words.chunks_exact_mut(2) {
            argument[0] = self.string(self.btf.string(argument[0]));
            argument[1] = self.argument(argument[1])?;
        }
        let result = self.argument(proto.other)?;
        Some(self.add("", KIND_FUNC_PROTO, false, proto.entries, result, &words))
    }

    /// Copies a type as arguments have it: with the name of what it points to.
    fn argument(&mut self, id: u32) -> Option<u32> {
        let Some(ty) = self.btf.by_id(id).filter(|ty| ty.kind == KIND_PTR) else { return self.value(id, 0) };
        if let Some(copy) = self.pointees.get(&id) {
            return Some(*copy);
        }
        let target = self.pointee(ty.other, 0)?;
        let copy = self.add("", KIND_PTR, false, 0, target, &[]);
        self.pointees.insert(id, copy);
        Some(copy)
    }

    fn pointee(&mut self, id: u32, depth: u32) -> Option<u32> {
        if let Some(copy) = self.pointees.get(&id) {
            return Some(*copy);
        }
        if depth > DEPTH {
            return None;
        }
        let ty = self.btf.by_id(id)?;
        let copy = match ty.kind {
            KIND_STRUCT | KIND_UNION => match self.values.get(&id) {
                Some(copy) => *copy,
                None => self.add(self.btf.string(ty.name), KIND_FWD, ty.kind == KIND_UNION, 0, 0, &[]),
            },
            KIND_CONST => {
                let other = self.pointee(ty.other, depth + 1)?;
                self.add("", KIND_CONST, false, 0, other, &[])
            }
            KIND_FUNC_PROTO => 0,
            KIND_TYPE_TAG => self.pointee(ty.other, depth + 1)?,
            _ => self.value(id, depth)?,
        };
        self.pointees.insert(id, copy);
        Some(copy)
    }

    fn finish(self) -> Result<Vec<u8>> {
        ensure!(self.count > 0, "nothing is left of it: these are not the types of a Linux kernel");
        assemble(&self.types, &self.strings)
    }
}
