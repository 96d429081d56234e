//! The first phase of a connection: the client chooses the export and what it wants to use of the protocol.

use super::wire::{
    CONTEXT, CONTEXT_ID, EXPORT, FIXED_NEWSTYLE, Fields, INFO_BLOCK_SIZE, INFO_DESCRIPTION, INFO_EXPORT, INFO_NAME,
    MAX_OPTION_BYTES, MAX_PAYLOAD, NO_ZEROES, OPT_ABORT, OPT_EXPORT_NAME, OPT_GO, OPT_INFO, OPT_LIST,
    OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT, OPT_STRUCTURED_REPLY, OPTION_MAGIC, REP_ACK, REP_ERR_INVALID,
    REP_ERR_TOO_BIG, REP_ERR_UNKNOWN, REP_ERR_UNSUP, REP_INFO, REP_META_CONTEXT, REP_SERVER, SERVER_MAGIC,
    export_flags, option_reply,
};
use std::io::{self, ErrorKind, Read, Write};

/// The most options that one client may send.
const MAX_OPTIONS: u32 = 256;
/// What a read should be a multiple of: less makes no read cheaper.
const PREFERRED_BYTES: u32 = 4096;

/// What is served.
#[derive(Clone, Debug)]
pub(super) struct Export {
    pub(super) bytes: u64,
    pub(super) description: String,
}

/// What a client chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Replies to reads are structured.
    pub(super) structured: bool,
    /// The client may ask for block status.
    pub(super) status: bool,
}

/// What becomes of the negotiation after an option.
enum Next {
    Option,
    Transmission,
    End,
}

/// Negotiates on `stream`. `None` if the client went away in good order.
pub(super) fn negotiate(stream: &mut (impl Read + Write), export: &Export) -> io::Result<Option<Chosen>> {
    let mut hello = [SERVER_MAGIC.as_slice(), OPTION_MAGIC].concat();
    hello.extend_from_slice(&[0, (FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes()[3]]);
    stream.write_all(&hello)?;
    let flags = u32::from_be_bytes(read(stream)?);
    if flags & !(FIXED_NEWSTYLE | NO_ZEROES) != 0 {
        return Err(refused("the client has flags that this server does not know"));
    }
    let mut client = Negotiation { stream, export, pads: flags & NO_ZEROES == 0, chosen: Chosen::default() };
    for _ in 0..MAX_OPTIONS {
        match client.option()? {
            Next::Option => {}
            Next::Transmission => return Ok(Some(client.chosen)),
            Next::End => return Ok(None),
        }
    }
    Err(refused("the client sent too many options"))
}

fn refused(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

fn read<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map(|()| bytes)
}

fn is_ours(name: &[u8]) -> bool {
    name.is_empty() || name == EXPORT.as_bytes()
}

struct Negotiation<'a, S> {
    stream: &'a mut S,
    export: &'a Export,
    /// The reply to the oldest way of choosing an export ends with zeros.
    pads: bool,
    chosen: Chosen,
}

impl<S: Read + Write> Negotiation<'_, S> {
    fn option(&mut self) -> io::Result<Next> {
        if read(self.stream)? != *OPTION_MAGIC {
            return Err(refused("the client sent something that is no option"));
        }
        let option = u32::from_be_bytes(read(self.stream)?);
        let len = u32::from_be_bytes(read(self.stream)?);
        if len > MAX_OPTION_BYTES {
            // The content is skipped as far as a client may mean it; beyond that nothing is owed.
            let skipped = io::copy(&mut Read::by_ref(self.stream).take(len.min(1 << 20).into()), &mut io::sink())?;
            self.reply(option, REP_ERR_TOO_BIG, &[])?;
            let all = skipped == u64::from(len) && option != OPT_EXPORT_NAME;
            return if all { Ok(Next::Option) } else { Err(refused("the client sent too long an option")) };
        }
        let mut content = vec![0; len as usize];
        self.stream.read_exact(&mut content)?;
        match option {
            OPT_EXPORT_NAME => return self.export_name(&content),
            OPT_ABORT => {
                // The client may be gone already.
                let _ = self.reply(option, REP_ACK, &[]);
                return Ok(Next::End);
            }
            OPT_INFO | OPT_GO => return self.go(option, &content),
            OPT_LIST if content.is_empty() => {
                let name = text(EXPORT);
                self.reply(option, REP_SERVER, &name)?;
                self.reply(option, REP_ACK, &[])?;
            }
            OPT_STRUCTURED_REPLY if content.is_empty() => {
                self.chosen.structured = true;
                self.reply(option, REP_ACK, &[])?;
            }
            OPT_LIST_META_CONTEXT | OPT_SET_META_CONTEXT => self.contexts(option, &content)?,
            OPT_LIST | OPT_STRUCTURED_REPLY => self.reply(option, REP_ERR_INVALID, &[])?,
            _ => self.reply(option, REP_ERR_UNSUP, &[])?,
        }
        Ok(Next::Option)
    }

    fn reply(&mut self, option: u32, kind: u32, content: &[u8]) -> io::Result<()> {
        self.stream.write_all(&option_reply(option, kind, content))
    }

    /// The oldest way: there is no reply that refuses.
    fn export_name(&mut self, name: &[u8]) -> io::Result<Next> {
        if !is_ours(name) {
            return Err(refused("the client asked for an export that is not there"));
        }
        let mut out = self.export.bytes.to_be_bytes().to_vec();
        out.extend_from_slice(&export_flags(self.chosen.structured).to_be_bytes());
        out.resize(out.len() + if self.pads { 124 } else { 0 }, 0);
        self.stream.write_all(&out)?;
        Ok(Next::Transmission)
    }

    fn go(&mut self, option: u32, content: &[u8]) -> io::Result<Next> {
        let mut fields = Fields(content);
        let asked = fields.text().zip(fields.u16());
        let Some((name, count)) = asked.filter(|(_, count)| fields.0.len() == usize::from(*count) * 2) else {
            self.reply(option, REP_ERR_INVALID, &[])?;
            return Ok(Next::Option);
        };
        if !is_ours(name) {
            self.reply(option, REP_ERR_UNKNOWN, &[])?;
            return Ok(Next::Option);
        }
        let mut export = INFO_EXPORT.to_be_bytes().to_vec();
        export.extend_from_slice(&self.export.bytes.to_be_bytes());
        export.extend_from_slice(&export_flags(self.chosen.structured).to_be_bytes());
        self.reply(option, REP_INFO, &export)?;
        let mut wanted: Vec<u16> = (0..count).filter_map(|_| fields.u16()).collect();
        wanted.sort_unstable();
        wanted.dedup();
        for info in wanted {
            let mut out = info.to_be_bytes().to_vec();
            match info {
                INFO_NAME => out.extend_from_slice(EXPORT.as_bytes()),
                INFO_DESCRIPTION => out.extend_from_slice(self.export.description.as_bytes()),
                INFO_BLOCK_SIZE => {
                    [1, PREFERRED_BYTES, MAX_PAYLOAD].iter().for_each(|size: &u32| out.extend(size.to_be_bytes()));
                }
                _ => continue,
            }
            self.reply(option, REP_INFO, &out)?;
        }
        self.reply(option, REP_ACK, &[])?;
        Ok(if option == OPT_GO { Next::Transmission } else { Next::Option })
    }

    fn contexts(&mut self, option: u32, content: &[u8]) -> io::Result<()> {
        if option == OPT_SET_META_CONTEXT {
            self.chosen.status = false;
        }
        let Some((name, queries)) = parse_contexts(content).filter(|_| self.chosen.structured) else {
            return self.reply(option, REP_ERR_INVALID, &[]);
        };
        if !is_ours(name) {
            return self.reply(option, REP_ERR_UNKNOWN, &[]);
        }
        let lists = option == OPT_LIST_META_CONTEXT;
        let exact = queries.iter().any(|query| *query == CONTEXT.as_bytes());
        if exact || lists && (queries.is_empty() || queries.iter().any(|query| *query == b"base:")) {
            let id = if lists { 0 } else { CONTEXT_ID };
            self.reply(option, REP_META_CONTEXT, &[&id.to_be_bytes(), CONTEXT.as_bytes()].concat())?;
            self.chosen.status |= !lists;
        }
        self.reply(option, REP_ACK, &[])
    }
}

fn parse_contexts(content: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let mut fields = Fields(content);
    let name = fields.text()?;
    let count = fields.u32()?;
    // Each query has four bytes at least, so a count that lies ends the loop early.
    let queries = (0..count).map(|_| fields.text()).collect::<Option<_>>()?;
    fields.0.is_empty().then_some((name, queries))
}

/// A text with its length in front.
fn text(text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes(), text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A client that said everything in advance.
    struct Script(io::Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Script {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            self.1.write(buffer)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn option(option: u32, content: &[u8]) -> Vec<u8> {
        let len = u32::try_from(content.len()).unwrap();
        [OPTION_MAGIC.as_slice(), &option.to_be_bytes(), &len.to_be_bytes(), content].concat()
    }

    fn says(bytes: &[u8]) -> (io::Result<Option<Chosen>>, Vec<u8>) {
        let mut client = Script(io::Cursor::new([&[0, 0, 0, 3], bytes].concat()), Vec::new());
        let export = Export { bytes: 1 << 30, description: "an image".into() };
        let chosen = negotiate(&mut client, &export);
        (chosen, client.1)
    }

    fn go(name: &str) -> Vec<u8> {
        option(OPT_GO, &[text(name), vec![0, 0]].concat())
    }

    fn contexts(query: &str) -> Vec<u8> {
        option(OPT_SET_META_CONTEXT, &[text("disk"), vec![0, 0, 0, 1], text(query)].concat())
    }

    #[test]
    fn a_client_gets_what_it_asked_for_and_no_more() {
        let chosen = |parts: &[Vec<u8>]| says(&parts.concat()).0.unwrap();
        assert_eq!(chosen(&[go("disk")]), Some(Chosen::default()));
        assert_eq!(chosen(&[go("")]), Some(Chosen::default()));
        let structured = option(OPT_STRUCTURED_REPLY, b"");
        let both = Chosen { structured: true, status: true };
        assert_eq!(chosen(&[structured.clone(), contexts(CONTEXT), go("disk")]), Some(both));
        assert_eq!(chosen(&[contexts(CONTEXT), structured.clone(), go("disk")]).map(|c| c.status), Some(false));
        assert_eq!(chosen(&[structured, contexts("base:other"), go("disk")]).map(|c| c.status), Some(false));
        assert_eq!(chosen(&[option(OPT_ABORT, b"")]), None);
        assert_eq!(chosen(&[go("other"), option(99, b"x"), go("disk")]), Some(Chosen::default()));
        assert!(says(&option(OPT_EXPORT_NAME, b"other")).0.is_err());
        let (chosen, said) = says(&option(OPT_EXPORT_NAME, b"disk"));
        assert_eq!((chosen.unwrap(), said.len()), (Some(Chosen::default()), 18 + 10));
    }

    #[test]
    fn what_is_malformed_or_too_long_is_refused_by_name() {
        let kind = |bytes: &[u8]| {
            let said = says(bytes).1;
            u32::from_be_bytes(said[30..34].try_into().unwrap())
        };
        assert_eq!(kind(&option(OPT_GO, b"\xff\xff\xff\xff")), REP_ERR_INVALID);
        assert_eq!(kind(&option(OPT_GO, &[text("disk"), vec![0, 9]].concat())), REP_ERR_INVALID);
        assert_eq!(kind(&option(OPT_LIST, b"x")), REP_ERR_INVALID);
        assert_eq!(kind(&option(OPT_SET_META_CONTEXT, b"\0\0\0\0\xff\xff\xff\xff")), REP_ERR_INVALID);
        assert_eq!(kind(&option(OPT_LIST, &[0; 20_000])), REP_ERR_TOO_BIG);
        assert!(says(b"GET / HTTP/1.1\r\n\r\n").0.is_err());
        let endless = option(99, b"").repeat(1000);
        assert!(says(&endless).0.is_err());
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), number in 0u32..12) {
            let _ = says(&option(number, &bytes));
            let _ = says(&bytes);
        }
    }
}
