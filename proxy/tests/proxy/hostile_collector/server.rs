//! A server that speaks just enough HTTP/2 to misbehave in it, on real sockets and frame by frame.
//!
//! It keeps to the windows of its peer where it is not told otherwise, so what it could send is what the peer was
//! ready to take.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use crate::export_support::FakeCollector;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// The largest frame that every peer takes.
const FRAME_BYTES: usize = 16_384;
/// What every peer takes before it says how much.
const FIRST_WINDOW: i64 = 65_535;

/// What was seen of the exporter.
#[derive(Default)]
pub(crate) struct Log {
    /// Connections accepted.
    pub(crate) connections: AtomicUsize,
    /// Requests that arrived whole.
    pub(crate) requests: AtomicUsize,
    /// Bytes of body that were taken of each answer that had no end.
    pub(crate) taken: Mutex<Vec<usize>>,
}

/// A running server.
pub(crate) struct Hostile {
    pub(crate) address: SocketAddr,
    pub(crate) log: Arc<Log>,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
    over: Arc<AtomicBool>,
    accepting: Option<std::thread::JoinHandle<()>>,
}

impl Hostile {
    /// Answers every request with a function of the call and its number, from 0.
    pub(crate) fn answering(
        answer: impl Fn(&mut Call<'_>, usize) -> io::Result<()> + Send + Sync + 'static,
    ) -> Hostile {
        Hostile::with_settings(&[], answer)
    }

    /// The same, after announcing these settings of HTTP/2.
    pub(crate) fn with_settings(
        settings: &[(u16, u32)],
        answer: impl Fn(&mut Call<'_>, usize) -> io::Result<()> + Send + Sync + 'static,
    ) -> Hostile {
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [name.to_be_bytes().as_slice(), value.to_be_bytes().as_slice()].concat())
            .collect();
        Hostile::speaking(move |socket, log| serve(socket, log, &settings, &answer))
    }

    /// Does with each connection what a function says, in whatever protocol.
    pub(crate) fn speaking(serve: impl Fn(TcpStream, &Log) -> io::Result<()> + Send + Sync + 'static) -> Hostile {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (log, sockets, over) = (
            Arc::<Log>::default(),
            Arc::<Mutex<Vec<TcpStream>>>::default(),
            Arc::default(),
        );
        let (seen, kept, ended) = (Arc::clone(&log), Arc::clone(&sockets), Arc::<AtomicBool>::clone(&over));
        let serve = Arc::new(serve);
        let accepting = std::thread::spawn(move || {
            for socket in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let socket = socket.unwrap();
                kept.lock().push(socket.try_clone().unwrap());
                seen.connections.fetch_add(1, Ordering::SeqCst);
                let (serve, seen) = (Arc::clone(&serve), Arc::clone(&seen));
                std::thread::spawn(move || {
                    // Nothing that a peer does can be written to for longer than this without its reading.
                    socket.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
                    let closing = socket.try_clone().unwrap();
                    // The exporter ends the connection, which is what most of these are about.
                    let _ = serve(socket, &seen);
                    let _ = closing.shutdown(Shutdown::Both);
                });
            }
        });
        Hostile {
            address,
            log,
            sockets,
            over,
            accepting: Some(accepting),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> usize {
        self.log.requests.load(Ordering::SeqCst)
    }

    /// Ends it and puts an honest collector at its address.
    pub(crate) fn replace(mut self) -> FakeCollector {
        self.end();
        FakeCollector::start_at(self.address, Arc::default())
    }

    fn end(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        self.over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        accepting.join().unwrap();
        for socket in self.sockets.lock().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.end();
    }
}

fn serve(
    mut socket: TcpStream,
    log: &Log,
    settings: &[u8],
    answer: &dyn Fn(&mut Call<'_>, usize) -> io::Result<()>,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.read_exact(&mut [0; 24])?;
    socket.set_read_timeout(Some(Duration::from_millis(5)))?;
    let mut connection = Connection {
        socket,
        unread: Vec::new(),
        window: FIRST_WINDOW,
        first_stream_window: FIRST_WINDOW,
        stream_windows: HashMap::new(),
        reset: HashSet::new(),
        whole: VecDeque::new(),
    };
    connection.frame(SETTINGS, 0, 0, settings)?;
    loop {
        connection.hear()?;
        while let Some(stream) = connection.whole.pop_front() {
            let number = log.requests.fetch_add(1, Ordering::SeqCst);
            let mut call = Call {
                connection: &mut connection,
                stream,
                log,
            };
            answer(&mut call, number)?;
        }
    }
}

/// One connection, as far as this server understands it.
struct Connection {
    socket: TcpStream,
    unread: Vec<u8>,
    window: i64,
    first_stream_window: i64,
    stream_windows: HashMap<u32, i64>,
    reset: HashSet<u32>,
    whole: VecDeque<u32>,
}

impl Connection {
    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.socket.write_all(&frame)
    }

    /// Reads what is there, waiting for a moment only, and does what HTTP/2 asks for.
    fn hear(&mut self) -> io::Result<()> {
        let mut buffer = [0; 64 << 10];
        match self.socket.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => self.unread.extend(&buffer[..length]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
        while self.unread.len() >= 9 {
            let length = u32::from_be_bytes([0, self.unread[0], self.unread[1], self.unread[2]]) as usize;
            if self.unread.len() < 9 + length {
                break;
            }
            let frame: Vec<u8> = self.unread.drain(..9 + length).collect();
            let stream = u32::from_be_bytes(frame[5..9].try_into().unwrap());
            self.understand(frame[3], frame[4], stream, &frame[9..])?;
        }
        Ok(())
    }

    fn understand(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        match kind {
            SETTINGS if flags & ACK == 0 => {
                for setting in payload.chunks_exact(6).filter(|setting| setting[..2] == [0, 4]) {
                    self.first_stream_window = u32::from_be_bytes(setting[2..].try_into().unwrap()).into();
                }
                self.frame(SETTINGS, ACK, 0, &[])?;
            }
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, payload)?,
            WINDOW_UPDATE => {
                let more = i64::from(u32::from_be_bytes(payload.try_into().unwrap()));
                match stream {
                    0 => self.window += more,
                    _ => *self.stream_windows.entry(stream).or_insert(self.first_stream_window) += more,
                }
            }
            RST_STREAM => {
                self.reset.insert(stream);
            }
            DATA | HEADERS if flags & END_STREAM != 0 => self.whole.push_back(stream),
            _ => {}
        }
        Ok(())
    }
}

/// A request that waits for its answer.
pub(crate) struct Call<'a> {
    connection: &'a mut Connection,
    stream: u32,
    log: &'a Log,
}

impl Call<'_> {
    /// A head or trailers, in as many frames as they need.
    pub(crate) fn fields(&mut self, fields: &[(&str, &str)], end: bool) -> io::Result<()> {
        let block = field_block(fields);
        let mut pieces = block.chunks(FRAME_BYTES).peekable();
        let mut kind = HEADERS;
        let mut flags = if end { END_STREAM } else { 0 };
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                flags |= END_HEADERS;
            }
            self.connection.frame(kind, flags, self.stream, piece)?;
            (kind, flags) = (CONTINUATION, 0);
        }
        Ok(())
    }

    /// The head of an answer of gRPC.
    pub(crate) fn grpc_head(&mut self) -> io::Result<()> {
        self.fields(&[(":status", "200"), ("content-type", "application/grpc")], false)
    }

    /// A head or trailers that go on until the peer has enough.
    pub(crate) fn fields_without_end(&mut self) -> io::Result<()> {
        let piece = field_block(&[("x-more", &"m".repeat(FRAME_BYTES - 100))]);
        self.connection.frame(HEADERS, END_STREAM, self.stream, &piece)?;
        loop {
            self.connection.frame(CONTINUATION, 0, self.stream, &piece)?;
            self.log.taken.lock().push(piece.len());
        }
    }

    /// A part of the body, whatever the windows are.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(FRAME_BYTES) {
            self.connection.frame(DATA, 0, self.stream, piece)?;
        }
        Ok(())
    }

    /// A body that goes on until the peer has enough, as fast as its windows allow or with a pause after each piece;
    /// notes how much the peer took.
    pub(crate) fn data_without_end(&mut self, piece: &[u8], pause: Duration) -> io::Result<()> {
        let mut taken = 0;
        let mut repeated = piece.iter().copied().cycle();
        let outcome = loop {
            if self.connection.reset.contains(&self.stream) {
                break Ok(());
            }
            let first = self.connection.first_stream_window;
            let window = *self.connection.stream_windows.entry(self.stream).or_insert(first);
            let room = usize::try_from(window.min(self.connection.window)).unwrap_or(0);
            let length = room.min(piece.len()).min(FRAME_BYTES);
            if length > 0 {
                let bytes: Vec<u8> = repeated.by_ref().take(length).collect();
                if let Err(error) = self.connection.frame(DATA, 0, self.stream, &bytes) {
                    break Err(error);
                }
                taken += length;
                self.connection.window -= length as i64;
                *self.connection.stream_windows.entry(self.stream).or_insert(first) -= length as i64;
                std::thread::sleep(pause);
                // As fast as it goes: what the peer says is heard when there is no room left.
                if pause.is_zero() {
                    continue;
                }
            }
            if let Err(error) = self.connection.hear() {
                break Err(error);
            }
        };
        self.log.taken.lock().push(taken);
        outcome
    }
}

/// Fields as HPACK writes them without its tables and without Huffman codes.
fn field_block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            let mut length = text.len();
            if length < 127 {
                block.push(length as u8);
            } else {
                block.push(127);
                length -= 127;
                while length >= 128 {
                    block.push((length % 128 + 128) as u8);
                    length /= 128;
                }
                block.push(length as u8);
            }
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A message as gRPC frames it.
pub(crate) fn message(payload: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    framed.extend(payload);
    framed
}
