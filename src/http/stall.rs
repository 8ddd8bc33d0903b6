//! A stream that gives up a peer who holds it: who reads no answer, ends no head of a request, or rests too long.
//!
//! hyper's own timer for heads runs between two requests too. Short enough for heads, it closes connections that a
//! proxy or a homeserver keeps for later, sometimes at the very moment at which the next request is under way on one of
//! them; and a `POST` that is lost so is repeated by nobody.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Semaphore,
    time::{Instant, Sleep, sleep},
};

/// How long each thing may take that a peer lets us wait for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// The head of a request, the first one included.
    pub(super) head: Duration,
    /// The time between two requests while there are places for others, in lengths of `head`; otherwise one.
    pub(super) rests: u32,
    /// An answer that is not read on.
    pub(super) write: Duration,
}

/// Whether a request is being handled: its service says so, its stream asks.
#[derive(Clone, Debug, Default)]
pub(super) struct Handling(Arc<AtomicU8>);

impl Handling {
    /// No request since the stream asked last.
    const NONE: u8 = 0;
    const BEGUN: u8 = 1;
    const ENDED: u8 = 2;

    pub(super) fn begins(&self) {
        self.0.store(Self::BEGUN, Relaxed);
    }

    pub(super) fn ends(&self) {
        self.0.store(Self::ENDED, Relaxed);
    }
}

/// What the peer is awaited for while nothing is handled.
#[derive(Clone, Copy, Debug)]
enum Awaited {
    /// The end of a head.
    Head,
    /// The next request, for so many lengths of `head` already.
    Request(u32),
}

/// A stream whose reads and writes fail once the peer has held it for too long.
#[derive(Debug)]
pub(super) struct Unstalled<S> {
    stream: S,
    patience: Patience,
    handling: Handling,
    /// Out of these, resting connections give way.
    places: Arc<Semaphore>,
    awaited: Awaited,
    /// Runs while a read waits for what is awaited.
    reading: Option<Pin<Box<Sleep>>>,
    /// Runs while a write waits for the peer.
    writing: Option<Pin<Box<Sleep>>>,
    /// Whether something was written since `reading` was last looked at.
    has_written: bool,
}

impl<S> Unstalled<S> {
    /// Bounds the time that the peer of `stream` may take.
    pub(super) fn new(
        stream: S,
        patience: Patience,
        handling: Handling,
        places: Arc<Semaphore>,
    ) -> Self {
        Self {
            stream,
            patience,
            handling,
            places,
            awaited: Awaited::Head,
            reading: None,
            writing: None,
            has_written: false,
        }
    }

    /// Whether a request is being handled; what is awaited after it is the next one.
    fn is_handling(&mut self) -> bool {
        let handling = self.handling.0.load(Relaxed);
        if handling != Handling::NONE {
            self.awaited = Awaited::Request(0);
            self.reading = None;
        }
        if handling == Handling::ENDED {
            self.handling.0.store(Handling::NONE, Relaxed);
        }
        handling == Handling::BEGUN
    }

    /// Notes that something was read: part of a head, unless a request is being handled.
    fn got_on(&mut self) {
        if !self.is_handling() && matches!(self.awaited, Awaited::Request(_)) {
            self.awaited = Awaited::Head;
            self.reading = None;
        }
    }

    /// Waits for the peer, who sends nothing; or says that it has lasted too long. While the peer reads an answer, it does
    /// not rest.
    fn silent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_handling() {
            return Poll::Pending;
        }
        let head = self.patience.head;
        let reading = self.reading.get_or_insert_with(|| Box::pin(sleep(head)));
        loop {
            ready!(reading.as_mut().poll(context));
            let is_read = self.writing.is_some() || std::mem::take(&mut self.has_written);
            self.awaited = match self.awaited {
                Awaited::Request(_) if is_read => Awaited::Request(0),
                Awaited::Request(rested)
                    if rested + 1 < self.patience.rests && self.places.available_permits() > 0 =>
                {
                    Awaited::Request(rested + 1)
                }
                Awaited::Head | Awaited::Request(_) => {
                    let why = "the peer sends nothing";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
                }
            };
            reading.as_mut().reset(Instant::now() + head);
        }
    }

    /// What a write came to, or that it has waited too long.
    fn in_time<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.writing = None;
            return written;
        }
        let limit = self.patience.write;
        let writing = self.writing.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(writing.as_mut().poll(context));
        let why = "the peer reads nothing";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.silent(context),
            Poll::Ready(read) => {
                self.got_on();
                Poll::Ready(read)
            }
        }
    }
}
impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.has_written |= written.is_ready();
        self.in_time(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.has_written |= written.is_ready();
        self.in_time(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.in_time(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.in_time(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::timeout,
    };

    use super::*;

    type Stream = Unstalled<DuplexStream>;

    const LIMIT: Duration = Duration::from_secs(30);
    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(10),
        rests: 5,
        write: LIMIT,
    };

    /// A peer, our stream to it, what says that a request is handled, and the one place that is left.
    fn pair(size: usize) -> (DuplexStream, Stream, Handling, Arc<Semaphore>) {
        let (peer, stream) = duplex(size);
        let (handling, places) = (Handling::default(), Arc::new(Semaphore::new(1)));
        let stream = Unstalled::new(stream, PATIENCE, handling.clone(), Arc::clone(&places));
        (peer, stream, handling, places)
    }

    /// Lets a request of one byte be handled.
    async fn one_request(peer: &mut DuplexStream, stream: &mut Stream, handling: &Handling) {
        peer.write_u8(1).await.unwrap();
        stream.read_u8().await.unwrap();
        handling.begins();
        assert!(timeout(LIMIT, stream.read_u8()).await.is_err());
        handling.ends();
    }

    /// After how long a read fails that gets nothing.
    async fn given_up(stream: &mut Stream) -> Duration {
        let began = Instant::now();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // The clock of tokio counts whole milliseconds.
        Duration::from_secs((began.elapsed() + Duration::from_millis(500)).as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_reads_fails() {
        let (_reader, mut stream, ..) = pair(64);
        let began = Instant::now();

        let error = stream.write_all(&[0; 65]).await.unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= LIMIT && began.elapsed() < LIMIT * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_slowly_is_waited_for() {
        let (mut reader, mut stream, ..) = pair(1);
        let reading = tokio::spawn(async move {
            let mut bytes = [0; 10];
            for byte in &mut bytes {
                sleep(LIMIT * 9 / 10).await;
                *byte = reader.read_u8().await.unwrap();
            }
            bytes
        });

        stream.write_all(&[7; 10]).await.unwrap();

        assert_eq!(reading.await.unwrap(), [7; 10]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_connects_and_asks_nothing_is_given_up() {
        let (_peer, mut stream, ..) = pair(64);

        assert_eq!(given_up(&mut stream).await, PATIENCE.head);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_drips_is_given_up_after_the_time_for_the_whole() {
        let (mut peer, mut stream, handling, _places) = pair(64);
        one_request(&mut peer, &mut stream, &handling).await;
        let began = Instant::now();
        let dripping = tokio::spawn(async move {
            while peer.write_u8(1).await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        });

        while stream.read_u8().await.is_ok() {}

        assert_eq!(began.elapsed().as_secs(), PATIENCE.head.as_secs());
        drop(stream);
        dripping.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_handled_takes_its_time() {
        let (mut peer, mut stream, handling, _places) = pair(64);

        one_request(&mut peer, &mut stream, &handling).await;
        one_request(&mut peer, &mut stream, &handling).await;
    }

    #[tokio::test(start_paused = true)]
    async fn between_two_requests_it_rests_longer_than_a_head_may_take() {
        let (mut peer, mut stream, handling, _places) = pair(64);
        one_request(&mut peer, &mut stream, &handling).await;

        let rested = given_up(&mut stream).await;

        assert_eq!(rested, PATIENCE.head * PATIENCE.rests);
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_an_answer_slowly_is_no_peer_that_rests() {
        let (mut peer, mut stream, handling, places) = pair(1);
        one_request(&mut peer, &mut stream, &handling).await;
        let _taken = places.acquire().await.unwrap();
        let reading = tokio::spawn(async move {
            for _ in 0..10 {
                sleep(LIMIT * 9 / 10).await;
                peer.read_u8().await.unwrap();
            }
            peer
        });

        let (mut incoming, mut outgoing) = tokio::io::split(stream);
        let silent = tokio::spawn(async move {
            let error = incoming.read_u8().await.unwrap_err();
            (error.kind(), Instant::now())
        });
        outgoing.write_all(&[7; 10]).await.unwrap();
        let written = Instant::now();

        let _peer = reading.await.unwrap();
        let (kind, ended) = silent.await.unwrap();
        assert_eq!(kind, io::ErrorKind::TimedOut);
        assert!(ended > written, "it was not cut off");
    }

    #[tokio::test(start_paused = true)]
    async fn who_rests_gives_way_when_no_place_is_left() {
        let (mut peer, mut stream, handling, places) = pair(64);
        one_request(&mut peer, &mut stream, &handling).await;
        let _taken = places.acquire().await.unwrap();

        assert_eq!(given_up(&mut stream).await, PATIENCE.head);
    }
}
