//! What the kernel command line says to us.

use std::fs;

/// The value of `name=` on the kernel command line. Double quotes hold blanks
/// together, around the value or the whole word, as the kernel's own parser has
/// it (*Documentation/admin-guide/kernel-parameters.rst*).
#[must_use]
pub fn value(name: &str) -> Option<String> {
    let words = fs::read("/proc/cmdline").unwrap_or_default();
    value_in(&String::from_utf8_lossy(&words), name)
}

fn value_in(cmdline: &str, name: &str) -> Option<String> {
    let mut quoted = false;
    cmdline
        .trim_end()
        .split(|c: char| {
            quoted ^= c == '"';
            c.is_ascii_whitespace() && !quoted
        })
        .find_map(|word| {
            let whole = word.strip_prefix('"').and_then(|w| w.strip_suffix('"'));
            let value = whole.unwrap_or(word).strip_prefix(name)?.strip_prefix('=')?;
            let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            Some(inner.unwrap_or(value).to_owned())
        })
}

#[cfg(test)]
mod tests {
    use super::value_in;

    #[test]
    fn value_is_found_in_any_quoting() {
        let of = |s: &str| value_in(s, "kluis.exec");
        assert_eq!(of("console=ttyS0 quiet"), None);
        assert_eq!(of("a kluis.exec=uname b\n").as_deref(), Some("uname"));
        assert_eq!(of("kluis.execute=no"), None);
        assert_eq!(of("a kluis.exec=\"uname -a; exit 7\" b").as_deref(), Some("uname -a; exit 7"));
        assert_eq!(of("\"kluis.exec=uname -a\" b").as_deref(), Some("uname -a"));
        assert_eq!(of("x=\"a kluis.exec=no\" kluis.exec='q'").as_deref(), Some("'q'"));
        assert_eq!(of("kluis.exec=\"unfinished business").as_deref(), Some("\"unfinished business"));
    }
}
