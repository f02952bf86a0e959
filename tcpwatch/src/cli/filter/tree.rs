//! A filter as a tree, and its way into tests that jump forward.

use tcpwatch_common::filter::{Expression, Target, Test};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    /// Only ever the whole tree: the operations below fold it away.
    Always(bool),
    Test(Test),
    Not(Box<Tree>),
    And(Box<Tree>, Box<Tree>),
    Or(Box<Tree>, Box<Tree>),
}

impl Tree {
    pub(super) fn not(self) -> Self {
        match self {
            Self::Always(value) => Self::Always(!value),
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }

    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Always(true), one) | (one, Self::Always(true)) => one,
            (Self::Always(false), _) | (_, Self::Always(false)) => Self::Always(false),
            (one, other) => Self::And(Box::new(one), Box::new(other)),
        }
    }

    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Always(false), one) | (one, Self::Always(false)) => one,
            (Self::Always(true), _) | (_, Self::Always(true)) => Self::Always(true),
            (one, other) => Self::Or(Box::new(one), Box::new(other)),
        }
    }

    /// `None`: nothing would be admitted. No more tests come this far than fit.
    pub(super) fn compile(&self) -> Option<Expression> {
        let mut expression = Expression::NONE;
        match self {
            Self::Always(true) => {}
            Self::Always(false) => return None,
            tree => drop(tree.put(&mut expression, Target::ADMIT, Target::REFUSE)?),
        }
        Some(expression)
    }

    /// Puts the tests for this tree before what is there, and gives the first of them.
    fn put(&self, into: &mut Expression, hit: Target, miss: Target) -> Option<Target> {
        match self {
            Self::Always(value) => Some(if *value { hit } else { miss }),
            Self::Test(test) => into.put(*test, hit, miss),
            Self::Not(inner) => inner.put(into, miss, hit),
            Self::And(one, other) => {
                let behind = other.put(into, hit, miss)?;
                one.put(into, behind, miss)
            }
            Self::Or(one, other) => {
                let behind = other.put(into, hit, miss)?;
                one.put(into, hit, behind)
            }
        }
    }
}
