//! Attributes: the short way to what the protocol calls `KeyValue`.

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value};

/// A value of whatever kind.
pub(super) trait Said {
    fn said(self) -> any_value::Value;
}

impl Said for String {
    fn said(self) -> any_value::Value {
        any_value::Value::StringValue(self)
    }
}

impl Said for &str {
    fn said(self) -> any_value::Value {
        self.to_owned().said()
    }
}

impl Said for u64 {
    /// The protocol has signed integers alone; none of ours comes near their end.
    fn said(self) -> any_value::Value {
        any_value::Value::IntValue(i64::try_from(self).unwrap_or(i64::MAX))
    }
}

impl Said for u32 {
    fn said(self) -> any_value::Value {
        u64::from(self).said()
    }
}

impl Said for u16 {
    fn said(self) -> any_value::Value {
        u64::from(self).said()
    }
}

impl Said for bool {
    fn said(self) -> any_value::Value {
        any_value::Value::BoolValue(self)
    }
}

impl<T: AsRef<str>> Said for &[T] {
    fn said(self) -> any_value::Value {
        let values = self.iter().map(|one| any(one.as_ref())).collect();
        any_value::Value::ArrayValue(ArrayValue { values })
    }
}

/// A list of tables.
impl Said for Vec<Attributes> {
    fn said(self) -> any_value::Value {
        let table = |one: Attributes| AnyValue {
            value: Some(any_value::Value::KvlistValue(KeyValueList { values: one.0 })),
        };
        any_value::Value::ArrayValue(ArrayValue { values: self.into_iter().map(table).collect() })
    }
}

pub(super) fn any(value: impl Said) -> AnyValue {
    AnyValue { value: Some(value.said()) }
}

/// What is not known is not there.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Attributes(pub(super) Vec<KeyValue>);

impl Attributes {
    pub(super) fn add(&mut self, key: &str, value: impl Said) {
        self.0.push(KeyValue { key: key.to_owned(), value: Some(any(value)), key_strindex: 0 });
    }

    pub(super) fn add_known(&mut self, key: &str, value: Option<impl Said>) {
        if let Some(value) = value {
            self.add(key, value);
        }
    }
}

#[cfg(test)]
pub(super) fn find<'a>(all: &'a [KeyValue], key: &str) -> Option<&'a any_value::Value> {
    all.iter().find(|one| one.key == key)?.value.as_ref()?.value.as_ref()
}
