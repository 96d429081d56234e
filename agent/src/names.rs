//! Why a name could not be looked up, for people: the C library says only what kind of failure it was.

/// Where the C library reads which servers it asks.
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How many servers and domains of the file are named.
const NAMED: usize = 6;

/// What to say about `host`, which the C library did not find and said `error` of, with the text of [`RESOLV_CONF`].
pub(crate) fn explain(host: &str, error: &str, resolv_conf: &str) -> String {
    let values = |key: &str| -> Vec<&str> {
        let lines = resolv_conf.lines().filter_map(|line| line.split_once(char::is_whitespace));
        let values = lines.filter(|(name, _)| *name == key).flat_map(|(_, values)| values.split_ascii_whitespace());
        values.take(NAMED).collect()
    };
    let (servers, domains) = (values("nameserver"), values("search"));
    if servers.is_empty() {
        return format!(
            "looking up {host}: no name server is known (no lease named one); give the server by its address"
        );
    }
    let asked = servers.join(", ");
    let says = |texts: &[&str]| texts.iter().any(|text| error.contains(text));
    // The first text of each is musl's, the second glibc's.
    if says(&["Try again", "Temporary failure"]) {
        return format!("looking up {host}: no usable answer in time from name server {asked}");
    }
    if says(&["does not resolve", "not known"]) {
        let also = match &domains[..] {
            _ if host.contains('.') => String::new(),
            [] => ", and the lease names no domain to look in".to_owned(),
            domains => format!(", in {} neither", domains.join(", ")),
        };
        return format!("looking up {host}: there is no such name (NXDOMAIN){also}, says name server {asked}");
    }
    let plain = error.rsplit(": ").next().unwrap_or(error);
    format!("looking up {host}: {plain}, from name server {asked}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = "nameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch lab.test\noptions timeout:2\n";

    #[test]
    fn a_failed_look_up_says_who_was_asked_and_what_came_of_it() {
        let musl = |text: &str| format!("failed to lookup address information: {text}");
        let none = explain("deploy", &musl("Name does not resolve"), CONF);
        assert!(
            none.contains("NXDOMAIN") && none.contains("10.0.0.1, 10.0.0.2") && none.contains("lab.test"),
            "{none}"
        );
        let full = explain("deploy.x", &musl("Name or service not known"), CONF);
        assert!(full.contains("NXDOMAIN") && !full.contains("lab.test"), "{full}");
        let silent = explain("deploy", &musl("Try again"), CONF);
        assert!(silent.contains("no usable answer in time from name server 10.0.0.1"), "{silent}");
        let other = explain("deploy", &musl("Non-recoverable error"), CONF);
        assert!(other.contains("Non-recoverable error, from name server"), "{other}");
        for text in ["", "search a\n", "nameserver\n"] {
            assert!(explain("deploy", &musl("Try again"), text).contains("no name server is known"));
        }
    }
}
