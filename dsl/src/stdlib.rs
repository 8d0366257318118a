//! The standard library, embedded: programs in the language itself (`dsl/std/*.nn`).

const FILES: &[(&str, &str)] = &[
    ("std.core", include_str!("../std/core.nn")),
    ("std.losses", include_str!("../std/losses.nn")),
    ("std.vision", include_str!("../std/vision.nn")),
];

/// The text of a part of the library, such as `std.vision`.
pub fn source(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}

/// The names of all parts.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}
