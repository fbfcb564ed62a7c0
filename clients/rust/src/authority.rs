//! Where control is said to listen.

use ureq::http::Uri;

/// `HOST:PORT`, the port said: a client that guesses one talks to somebody else.
pub(crate) fn check_authority(authority: &str) -> Result<(), &'static str> {
    if !authority.starts_with('[') && authority.matches(':').count() > 1 {
        return Err("an address of IPv6 needs brackets and a port, as in [::1]:7400");
    }
    let uri: Uri =
        format!("http://{authority}/").parse().map_err(|_| "it cannot be read as HOST:PORT")?;
    if uri.path() != "/" || authority.contains(['/', '?', '#', '@']) {
        return Err("something follows the port");
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err("the host is missing");
    }
    match (uri.port_u16(), authority.ends_with(|last: char| last.is_ascii_digit())) {
        (Some(port), _) if port > 0 => Ok(()),
        (Some(_), _) => Err("no control listens on port 0: say the one of its ready line"),
        (None, true) if authority.rsplit(']').next().is_some_and(|rest| rest.contains(':')) => {
            Err("the port is none: say 1 to 65535")
        }
        (None, _) => Err("the port is missing"),
    }
}

#[cfg(test)]
mod tests {
    use super::check_authority;

    #[test]
    fn a_port_that_is_none_is_told_from_one_that_is_missing() {
        for good in ["localhost:1", "10.0.0.1:65535", "[::1]:7400"] {
            assert_eq!(check_authority(good), Ok(()), "{good}");
        }
        for missing in ["[::1]", "localhost", "localhost:", "10.0.0.1"] {
            assert_eq!(check_authority(missing), Err("the port is missing"), "{missing}");
        }
        for none in ["localhost:99999", "[::1]:65536"] {
            assert_eq!(check_authority(none), Err("the port is none: say 1 to 65535"), "{none}");
        }
        assert!(check_authority("localhost:0").unwrap_err().contains("port 0"));
    }
}
