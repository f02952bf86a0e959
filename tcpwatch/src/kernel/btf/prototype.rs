//! Prototypes as a kernel's BTF tells them, in C: what the comments above the hooks are compared with.

use super::{
    Btf, DEPTH, KIND_CONST, KIND_ENUM, KIND_ENUM64, KIND_FUNC, KIND_FUNC_PROTO, KIND_FWD, KIND_PTR,
    KIND_STRUCT, KIND_TYPEDEF, KIND_UNION, TYPE_BYTES, Type,
};

impl Btf {
    /// `void tcp_reset(struct sock *sk, struct sk_buff *skb)`.
    pub fn function_prototype(&self, name: &str) -> Option<String> {
        let proto = self.resolve(self.by_name(KIND_FUNC, name)?.other)?;
        let arguments = self.arguments(proto)?;
        Some(self.declare(proto.other, &format!("{name}({})", arguments.join(", "))))
    }

    /// `(const struct sock *, const int)`: BTF has no names for the arguments of tracepoints.
    pub fn tracepoint_prototype(&self, name: &str) -> Option<String> {
        let pointer = self.resolve(self.by_name(KIND_TYPEDEF, &super::tracepoint_type(name))?.other)?;
        let arguments = self.arguments(self.resolve(pointer.other)?)?;
        Some(format!("({})", arguments.get(1..)?.join(", ")))
    }

    fn arguments(&self, proto: Type) -> Option<Vec<String>> {
        if proto.kind != KIND_FUNC_PROTO {
            return None;
        }
        (0..proto.entries)
            .map(|i| {
                let at = proto.at + TYPE_BYTES + i * 8;
                Some(self.declare(self.word(at + 4)?, self.string(self.word(at)?)))
            })
            .collect()
    }

    /// A declaration of `what` with type `id`. Enough of C for arguments and results: no arrays, functions as `void`.
    fn declare(&self, mut id: u32, what: &str) -> String {
        let mut what = what.to_owned();
        let mut constant = "";
        for _ in 0..DEPTH {
            let Some(ty) = self.by_id(id) else { break };
            let name = self.string(ty.name);
            let base = match ty.kind {
                KIND_PTR => {
                    what.insert(0, '*');
                    // What was constant so far was the pointer.
                    constant = "";
                    id = ty.other;
                    continue;
                }
                KIND_CONST => {
                    constant = "const ";
                    id = ty.other;
                    continue;
                }
                KIND_FUNC_PROTO => break,
                KIND_STRUCT => format!("struct {name}"),
                KIND_UNION => format!("union {name}"),
                KIND_FWD => format!("{} {name}", if ty.bitfields { "union" } else { "struct" }),
                KIND_ENUM | KIND_ENUM64 => format!("enum {name}"),
                _ if name.is_empty() => {
                    id = ty.other;
                    continue;
                }
                _ => plain(name).to_owned(),
            };
            return format!("{constant}{base} {what}").trim_end().to_owned();
        }
        format!("{constant}void {what}").trim_end().to_owned()
    }
}

/// As people write it, and not as compilers do.
fn plain(name: &str) -> &str {
    match name {
        "long unsigned int" => "unsigned long",
        "long int" => "long",
        "long long unsigned int" => "unsigned long long",
        "long long int" => "long long",
        "short unsigned int" => "unsigned short",
        "_Bool" => "bool",
        other => other,
    }
}
