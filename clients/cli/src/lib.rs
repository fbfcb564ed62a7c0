//! The landfall tool for people.
