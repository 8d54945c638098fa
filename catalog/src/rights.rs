//! Who may do what.
//!
//! ```text
//!   administrator   all that an owner may; grants; lifts what a tier forbids
//!   owner           all that a writer may; changes how a table is, renames it, drops it
//!   writer          all that a reader may; writes rows; makes tables in a namespace, which then are its own
//!   reader          sees that a table is there, and reads it
//!
//!   a role on the catalog holds for all of it, on a namespace for all that is in it
//! ```
//!
//! Whoever holds the catalog's database needs no role. A server asks everybody who they are, as soon as there is a
//! principal, and then looks here.

use std::fmt;
use std::str::FromStr;

use crate::spec::{NamespaceIdent, TableIdent};
use crate::{Error, ErrorKind, Result};

/// What a principal may do; a higher one includes the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads.
    Reader,
    /// Writes rows.
    Writer,
    /// Changes and drops tables.
    Owner,
    /// Grants.
    Administrator,
}

impl Role {
    /// All of them, the lowest first.
    pub const ALL: [Self; 4] = [Self::Reader, Self::Writer, Self::Owner, Self::Administrator];

    /// Its name in SQL and in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Owner => "owner",
            Self::Administrator => "administrator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|it| it.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| {
            Error::new(ErrorKind::DataInvalid, format!("there is no role `{text}`"))
                .with_context("hint", "the roles are reader, writer, owner and administrator")
        })
    }
}

/// What a role is on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// All there is.
    Catalog,
    /// A namespace, with the tables, views and namespaces in it.
    Namespace(NamespaceIdent),
    /// A table or a view: they share their names.
    Table(TableIdent),
}

impl Object {
    /// What it is called in SQL.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Catalog => "catalog",
            Self::Namespace(_) => "namespace",
            Self::Table(_) => "table",
        }
    }

    /// Its name, with dots; empty for the catalog.
    pub fn name(&self) -> String {
        match self {
            Self::Catalog => String::new(),
            Self::Namespace(namespace) => namespace.as_ref().join("."),
            Self::Table(table) => {
                format!("{}.{}", table.namespace().as_ref().join("."), table.name())
            }
        }
    }

    /// The object of a kind and a name, as the database has them.
    pub fn parse(kind: &str, name: &str) -> Result<Self> {
        match kind {
            "catalog" => Ok(Self::Catalog),
            "namespace" => Ok(Self::Namespace(NamespaceIdent::from_strs(name.split('.'))?)),
            _ => Ok(Self::Table(TableIdent::from_strs(name.split('.'))?)),
        }
    }

    /// Whether what holds for this one holds for the other.
    pub fn covers(&self, other: &Self) -> bool {
        let below = |ours: &NamespaceIdent, theirs: &NamespaceIdent| {
            theirs.as_ref().starts_with(ours.as_ref().as_slice())
        };
        match (self, other) {
            (Self::Catalog, _) => true,
            (Self::Namespace(ours), Self::Namespace(theirs)) => below(ours, theirs),
            (Self::Namespace(ours), Self::Table(theirs)) => below(ours, theirs.namespace()),
            (Self::Table(ours), Self::Table(theirs)) => ours == theirs,
            _ => false,
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Catalog => f.write_str("the catalog"),
            _ => write!(f, "{} `{}`", self.kind(), self.name()),
        }
    }
}

/// A role that a principal has on an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who has it.
    pub principal: String,
    /// What it may.
    pub role: Role,
    /// On what.
    pub object: Object,
    /// Who gave it.
    pub granted_by: String,
    /// When, in milliseconds since 1970.
    pub granted_at_ms: i64,
}

/// Someone who proved who they are, with what they may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its name.
    pub principal: String,
    /// Its roles.
    pub grants: Vec<Grant>,
}

impl Caller {
    /// Whether the caller has at least a role on an object.
    pub fn may(&self, role: Role, object: &Object) -> bool {
        self.grants.iter().any(|it| it.role >= role && it.object.covers(object))
    }

    /// Whether the caller may see that an object is there: because it may read it, or something in it.
    pub fn sees(&self, object: &Object) -> bool {
        self.may(Role::Reader, object) || self.grants.iter().any(|it| object.covers(&it.object))
    }
}

/// A principal, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Its name, which is its client id.
    pub name: String,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: i64,
}

/// A token that was given, and for how long it is good.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What the client sends.
    pub secret: String,
    /// Whose it is.
    pub principal: String,
    /// Seconds until it is worth nothing.
    pub expires_in: i64,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token of {}", self.principal)
    }
}

/// Refuses names that cannot be client ids.
pub(crate) fn check_principal(name: &str) -> Result<()> {
    let fits = |it: char| it.is_alphanumeric() || matches!(it, '_' | '-' | '.' | '@' | '+');
    if name.is_empty() || name.chars().count() > 200 || !name.chars().all(fits) {
        return Err(Error::new(
            ErrorKind::DataInvalid,
            format!("{name:?} cannot be a principal: letters, digits, `_-.@+`, at most 200"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, name: &str) -> Object {
        Object::parse(kind, name).unwrap()
    }

    #[test]
    fn a_role_holds_below_and_not_beside() {
        let grant = |role, object| Grant {
            principal: "ada".to_owned(),
            role,
            object,
            granted_by: String::new(),
            granted_at_ms: 0,
        };
        let caller = Caller {
            principal: "ada".to_owned(),
            grants: vec![
                grant(Role::Writer, object("namespace", "raw.web")),
                grant(Role::Owner, object("table", "cleaned.orders")),
            ],
        };
        for (role, kind, name, allowed) in [
            (Role::Reader, "table", "raw.web.clicks", true),
            (Role::Writer, "table", "raw.web.deep.clicks", true),
            (Role::Owner, "table", "raw.web.clicks", false),
            (Role::Reader, "table", "raw.webs", false),
            (Role::Reader, "namespace", "raw", false),
            (Role::Writer, "namespace", "raw.web", true),
            (Role::Owner, "table", "cleaned.orders", true),
            (Role::Reader, "table", "cleaned.orders2", false),
            (Role::Reader, "catalog", "", false),
        ] {
            assert_eq!(caller.may(role, &object(kind, name)), allowed, "{role} {kind} {name}");
        }
        assert!(caller.sees(&object("namespace", "raw")) && caller.sees(&Object::Catalog));
        assert!(caller.sees(&object("namespace", "cleaned")));
        assert!(!caller.sees(&object("namespace", "curated")));
        assert!(!caller.sees(&object("table", "cleaned.other")));
    }
}
