//! An event as JSON: values by `serde_json`, field names as they are. It looks for something to escape in each letter of each
//! name, which takes as long as everything else about an event that is one of many.

use serde::ser::{Error as _, Impossible, SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};
use serde_json::{Error, Result};

/// Writes structures, lists, names and plain values, which is all that events consist of.
pub(super) struct Line<'a>(pub(super) &'a mut Vec<u8>);

impl Line<'_> {
    /// A text in which nothing has to be escaped.
    fn quoted(self, text: &str) {
        self.0.reserve(text.len() + 2);
        self.0.push(b'"');
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b'"');
    }
}

/// A structure, or a list, of which some was written.
pub(super) struct Open<'a> {
    bytes: &'a mut Vec<u8>,
    /// What stands in front of the next part.
    before: u8,
    close: u8,
}

impl<'a> Open<'a> {
    // Inlined, here and below, so that the length of a name is known where it is copied.
    #[inline(always)]
    fn next(&mut self) {
        self.bytes.push(self.before);
        self.before = b',';
    }

    fn close(self, open: u8) {
        if self.before == open {
            self.bytes.push(open);
        }
        self.bytes.push(self.close);
    }
}

impl SerializeStruct for Open<'_> {
    type Ok = ();
    type Error = Error;

    #[inline(always)]
    fn serialize_field<T: ?Sized + Serialize>(&mut self, key: &'static str, value: &T) -> Result<()> {
        debug_assert!(key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{key}");
        self.bytes.extend_from_slice(&[self.before, b'"']);
        self.before = b',';
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(b"\":");
        value.serialize(Line(self.bytes))
    }

    fn end(self) -> Result<()> {
        self.close(b'{');
        Ok(())
    }
}

impl SerializeSeq for Open<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<()> {
        self.next();
        value.serialize(Line(self.bytes))
    }

    fn end(self) -> Result<()> {
        self.close(b'[');
        Ok(())
    }
}

/// Values that `serde_json` writes.
macro_rules! plain {
    ($($name:ident: $kind:ty,)*) => {
        $(fn $name(self, value: $kind) -> Result<()> {
            serde_json::Serializer::new(self.0).$name(value)
        })*
    };
}

/// Whether some byte has to be escaped: a quote, a backslash, or one below the space. All are looked at, eight at a time: most texts
/// are short, and have none.
fn has_special(bytes: &[u8]) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The highest bit of each byte that is less than another, at most 128; a byte above one that is may have it too.
    let below = |word: u64, limit: u8| word.wrapping_sub(LOW * u64::from(limit)) & !word & HIGH;
    let special = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        let is = |byte: u8| below(word ^ (LOW * u64::from(byte)), 1);
        below(word, b' ') | is(b'"') | is(b'\\')
    };
    let Some(last) = bytes.last_chunk() else {
        return bytes.iter().any(|byte| matches!(byte, ..b' ' | b'"' | b'\\'));
    };
    // The last eight are mostly looked at twice in part, which takes less than one after the other.
    let (words, _) = bytes.as_chunks();
    words.iter().fold(special(last), |any, word| any | special(word)) != 0
}

/// What no event has.
fn foreign<T>() -> Result<T> {
    Err(Error::custom("an event has structures, lists, names and plain values only"))
}

impl<'a> Serializer for Line<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Open<'a>;
    type SerializeStruct = Open<'a>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Impossible<(), Error>;
    type SerializeStructVariant = Impossible<(), Error>;

    plain! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
        serialize_bytes: &[u8],
        serialize_unit_struct: &'static str,
    }

    fn serialize_str(self, value: &str) -> Result<()> {
        // Most texts have nothing to escape.
        if has_special(value.as_bytes()) {
            return serde_json::Serializer::new(self.0).serialize_str(value);
        }
        self.quoted(value);
        Ok(())
    }

    /// Without it there would be a string in between.
    fn collect_str<T: ?Sized + std::fmt::Display>(self, value: &T) -> Result<()> {
        serde_json::Serializer::new(self.0).collect_str(value)
    }

    fn serialize_none(self) -> Result<()> {
        self.serialize_unit()
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<()> {
        self.0.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(self, _: &'static str, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Open<'a>> {
        Ok(Open { bytes: self.0, before: b'[', close: b']' })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Open<'a>> {
        Ok(Open { bytes: self.0, before: b'{', close: b'}' })
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<()> {
        debug_assert!(!has_special(name.as_bytes()), "{name}");
        self.quoted(name);
        Ok(())
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<()> {
        foreign()
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple> {
        foreign()
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct> {
        foreign()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant> {
        foreign()
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap> {
        foreign()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant> {
        foreign()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct All<'a> {
        text: &'a str,
        number: u64,
        truth: bool,
        known: Option<u32>,
        unknown: Option<u32>,
        addr: std::net::IpAddr,
        inner: Inner,
        list: &'a [Inner],
        empty: &'a [Inner],
        #[serde(skip_serializing_if = "Option::is_none")]
        absent: Option<u32>,
    }

    #[derive(Serialize)]
    struct Inner {
        x: u8,
    }

    #[derive(Serialize)]
    struct Nothing {}

    #[test]
    fn it_writes_what_serde_json_writes() {
        let all = All {
            text: "a \"quoted\"\\\n\u{1}é",
            number: u64::MAX,
            truth: true,
            known: Some(1),
            unknown: None,
            addr: "fd00::1".parse().unwrap(),
            inner: Inner { x: 1 },
            list: &[Inner { x: 2 }, Inner { x: 3 }],
            empty: &[],
            absent: None,
        };
        let mut line = Vec::new();
        all.serialize(Line(&mut line)).unwrap();
        assert_eq!(String::from_utf8(line).unwrap(), serde_json::to_string(&all).unwrap());
        let mut line = Vec::new();
        Nothing {}.serialize(Line(&mut line)).unwrap();
        assert_eq!(line, b"{}");
    }

    #[test]
    fn every_byte_that_must_be_escaped_is_found_wherever_it_stands() {
        for length in 0..40 {
            for (at, byte) in (0..length).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
                for other in [b'a', 0x7f, 0x80, 0xff, b' ', b'!', b'#', b'[', b']'] {
                    let mut bytes = vec![other; length];
                    bytes[at] = byte;
                    let special = byte < b' ' || byte == b'"' || byte == b'\\';
                    assert_eq!(has_special(&bytes), special, "{byte} at {at} of {length}, among {other}");
                }
            }
        }
    }

    #[test]
    fn what_it_cannot_write_is_an_error_and_not_wrong() {
        assert!((1, 2).serialize(Line(&mut Vec::new())).is_err());
        let map = std::collections::BTreeMap::from([(1, 2)]);
        assert!(map.serialize(Line(&mut Vec::new())).is_err());
    }
}
