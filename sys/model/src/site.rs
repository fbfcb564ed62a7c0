//! Sites: the places in protocol code where a line is written back or dropped, or a fence stands.

use std::panic::Location;

/// What a site does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Starts writing lines back.
    WriteBack,
    /// Waits for write-backs.
    WriteBackFence,
    /// Drops copies of lines.
    Invalidate,
    /// Waits for those.
    InvalidateFence,
    /// The fence of Dekker's algorithm.
    FullFence,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::WriteBack => "write-back",
            Self::WriteBackFence => "write-back fence",
            Self::Invalidate => "invalidate",
            Self::InvalidateFence => "invalidate fence",
            Self::FullFence => "full fence",
        })
    }
}

/// One place in the source.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// Where.
    pub place: &'static Location<'static>,
    /// Which of the things that happen there.
    pub kind: Kind,
}

impl PartialEq for Site {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        // A generic function has a copy of its places for each type it is made for, so equal
        // places need not be one address.
        self.kind == other.kind
            && (std::ptr::eq(self.place, other.place)
                || (self.place.line() == other.place.line() && self.place == other.place))
    }
}

/// What calls a flush or fence looks like in the source.
const CALLS: [&str; 7] = [
    ".publish(",
    ".refresh(",
    ".write_back(",
    ".after_write_back(",
    ".invalidate(",
    ".after_invalidate(",
    ".full_fence(",
];

impl Site {
    /// The site's name, which lasts while lines come and go above it: file, type and function, and
    /// the how manieth flush or fence of the function it is. `root` is where the paths in places
    /// begin.
    pub fn name(&self, root: &std::path::Path) -> String {
        let file = self.place.file();
        let stem = std::path::Path::new(file).file_stem().unwrap_or_default().to_string_lossy();
        let Ok(source) = std::fs::read_to_string(root.join(file)) else {
            return format!("{file}:{} {}", self.place.line(), self.kind);
        };
        let (function, rank) = enclosing(&source, self.place.line() as usize);
        format!("{stem}::{function}.{rank} {}", self.kind)
    }
}

/// The function around a line, with its type, and the rank of the call on that line.
fn enclosing(source: &str, line: usize) -> (String, usize) {
    let before: Vec<&str> = source.lines().take(line).collect();
    let starts = |text: &str| {
        let text = text.trim_start();
        let text = text.strip_prefix("pub").map_or(text, |rest| {
            rest.trim_start_matches("(crate)").trim_start_matches("(super)").trim_start()
        });
        text.strip_prefix("fn ")
            .map(|name| name.split(['(', '<']).next().unwrap_or(name).to_owned())
    };
    let Some((at, function)) =
        before.iter().enumerate().rev().find_map(|(at, text)| Some((at, starts(text)?)))
    else {
        return (format!("line {line}"), 1);
    };
    let rank = before[at..].iter().filter(|text| CALLS.iter().any(|call| text.contains(call)));
    let owner = before[..at].iter().rev().take_while(|text| **text != "}").find_map(|text| {
        let text = text.strip_prefix("impl")?.split(" where").next()?.trim_end_matches(" {");
        let name = text.rsplit(' ').next()?;
        Some(name.split('<').next().unwrap_or(name).to_owned())
    });
    let name = match owner {
        Some(owner) => format!("{owner}::{function}"),
        None => function,
    };
    (name, rank.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_named_by_its_function() {
        let source = "\
fn free(m: &M) {
    m.publish(0, 8);
    m.refresh(0, 8);
}

impl<M: Memory> Ring<M> {
    pub(crate) fn push<N>(&self) {
        if x {
            m.refresh(1, 8);
        }
        m.publish(2, 8);
    }
}
";
        assert_eq!(enclosing(source, 3), ("free".to_owned(), 2));
        assert_eq!(enclosing(source, 9), ("Ring::push".to_owned(), 1));
        assert_eq!(enclosing(source, 11), ("Ring::push".to_owned(), 2));
        assert_eq!(enclosing("let x;", 1).0, "line 1");
    }
}
