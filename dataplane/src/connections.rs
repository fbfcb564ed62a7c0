//! Connections come, want to be watched, and go.

use std::os::fd::AsFd;

use landfall_layout::frame::{FRAME_BYTES, Frame, Refusal};
use nix::sys::epoll::{EpollEvent, EpollFlags};

use crate::broker::{Broker, TCP_LISTENER, UNIX_LISTENER, prepare_tcp};
use crate::conn::{Conn, Interest, Kind, Publisher, Socket, Via};
use crate::conns::Token;
use crate::hello::Greeting;

/// Connections accepted in one turn, so that those there are get their turn.
const ACCEPTS_PER_TURN: usize = 64;

impl Broker {
    #[cold]
    pub(crate) fn accept_tcp(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            match self.tcp.accept() {
                Ok((stream, _)) => {
                    if prepare_tcp(&stream).is_ok() {
                        self.take_in(Socket::Tcp(stream));
                    }
                }
                Err(error) => return self.accept_failed(&error),
            }
        }
    }

    #[cold]
    pub(crate) fn accept_unix(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            match self.unix.accept() {
                Ok((stream, _)) => {
                    if stream.set_nonblocking(true).is_ok() {
                        self.take_in(Socket::Unix(stream));
                    }
                }
                Err(error) => return self.accept_failed(&error),
            }
        }
    }

    /// Out of descriptors, most likely: the listeners would say so for ever, so they are left
    /// alone until the next tick.
    fn accept_failed(&mut self, error: &std::io::Error) {
        use std::io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
        if !matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted) {
            self.env.error(&format!("accept a connection: {error}"));
            self.make_room();
            self.accepting(false);
        }
    }

    /// Whether new connections are looked for.
    pub(crate) fn accepting(&mut self, wanted: bool) {
        if self.accepts == wanted {
            return;
        }
        self.accepts = wanted;
        let flags = if wanted { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
        let listeners = [(self.tcp.as_fd(), TCP_LISTENER), (self.unix.as_fd(), UNIX_LISTENER)];
        for (listener, mark) in listeners {
            if let Err(error) = self.epoll.modify(listener, &mut EpollEvent::new(flags, mark)) {
                self.env.error(&format!("watch a listener: {error}"));
            }
        }
    }

    fn take_in(&mut self, socket: Socket) {
        let (stays, is_told) = self.has_room();
        if !is_told {
            return;
        }
        let greeting = Kind::Greeting(Box::new(Greeting::new()));
        let slot = self.conns.add(|token| Conn::new(token, socket, greeting));
        let Some(conn) = self.conns.get(slot) else { return };
        let event = EpollEvent::new(EpollFlags::EPOLLIN, conn.token.0);
        let Some(fd) = conn.socket.fd() else { return };
        if let Err(error) = self.epoll.add(fd, event) {
            self.env.error(&format!("watch a connection: {error}"));
            return self.drop_conn(slot);
        }
        if !stays {
            let text = self.room.is_full();
            self.refuse(slot, Refusal::Busy, &text);
        }
    }

    /// Something happened on a connection's socket.
    pub(crate) fn conn_event(&mut self, mark: u64, flags: EpollFlags) {
        let slot = Token(mark).slot();
        let Some(conn) = self.conns.by_token(Token(mark)) else { return };
        if let Socket::Verbs(link) = &mut conn.socket {
            link.queue.take_bells();
            self.serve_queue(slot);
            return;
        }
        if flags.contains(EpollFlags::EPOLLOUT) {
            if let Kind::Stream(delivering) = &mut conn.kind {
                delivering.blocked = false;
            }
            self.flush_conn(slot);
        }
        let ended = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        let Some(conn) = self.conns.by_token(Token(mark)) else { return };
        if !conn.interest.read && flags.intersects(ended) {
            return self.hung_up(slot);
        }
        if flags.intersects(EpollFlags::EPOLLIN | ended) {
            self.readable(slot);
        }
    }

    /// The other side is gone and nothing is read from the connection at this time. What it sent
    /// before still counts, so a publisher that waits for room is only taken out of epoll.
    fn hung_up(&mut self, slot: usize) {
        let Self { conns, epoll, .. } = self;
        let Some(conn) = conns.get(slot) else { return };
        let waits = matches!(&conn.kind, Kind::Publisher(p) if p.stalled.is_some());
        if waits && conn.channel.is_none() {
            if !std::mem::replace(&mut conn.interest.detached, true)
                && let Some(fd) = conn.socket.fd()
            {
                // It is watched, or else there would have been no event.
                let _ = epoll.delete(fd);
            }
        } else {
            self.drop_conn(slot);
        }
    }

    fn readable(&mut self, slot: usize) {
        let Self { conns, scratch, .. } = self;
        let Some(conn) = conns.get(slot) else { return };
        match &mut conn.kind {
            Kind::Greeting(_) => self.greet(slot),
            Kind::Publisher(Publisher { via: Via::Stream(_), .. }) => {
                self.serve_publisher(slot);
            }
            Kind::Publisher(_) | Kind::Reader(_) | Kind::RemoteReader(_) | Kind::Closing { .. } => {
                // Bells, or what a client still sends that was told to go.
                let over = match conn.socket.recv(scratch) {
                    Ok(got) => got == 0,
                    Err(error) => !matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
                    ),
                };
                if over {
                    self.last_words(slot);
                    self.drop_conn(slot);
                }
            }
            Kind::Stream(_) => self.hear_subscriber(slot),
        }
    }

    /// What a memory publisher wrote before it left still counts.
    fn last_words(&mut self, slot: usize) {
        for _ in 0..64 {
            let is_publisher = self.conns.get(slot).is_some_and(|conn| {
                matches!(&conn.kind, Kind::Publisher(_))
                    && conn.channel.as_ref().is_some_and(|channel| channel.is_ready())
            });
            if !is_publisher || self.serve_publisher(slot) == 0 {
                return;
            }
        }
    }

    /// A subscriber only ever says goodbye.
    fn hear_subscriber(&mut self, slot: usize) {
        let Some(conn) = self.conns.get(slot) else { return };
        let Conn { socket, kind: Kind::Stream(delivering), .. } = conn else { return };
        match socket.recv(&mut delivering.inbox[delivering.have..]) {
            Ok(0) => return self.drop_conn(slot),
            Ok(got) => delivering.have += got,
            Err(error) => {
                if !matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
                ) {
                    self.drop_conn(slot);
                }
                return;
            }
        }
        if delivering.have < FRAME_BYTES {
            return;
        }
        match Frame::decode(delivering.inbox) {
            Ok((Frame::Bye, 0)) => self.drop_conn(slot),
            Ok((frame, _)) => {
                let text = format!("a subscriber says nothing but Bye; found {frame:?}");
                self.refuse(slot, Refusal::Malformed, &text);
            }
            Err(error) => self.refuse(slot, Refusal::Malformed, &error.to_string()),
        }
    }

    /// Sends what a connection has queued, and sees whether that was the last of it.
    pub(crate) fn flush_conn(&mut self, slot: usize) {
        let Some(conn) = self.conns.get(slot) else { return };
        conn.touched = false;
        if conn.flush().is_err() {
            return self.drop_conn(slot);
        }
        let drained = conn.out.is_empty();
        let pulls = |via: &Via| matches!(via, Via::Verbs(via) if via.is_pulling());
        let finished = matches!(&conn.kind, Kind::Publisher(p)
            if p.bye && p.in_flight == 0 && !pulls(&p.via));
        let blocked = matches!(&conn.kind, Kind::Stream(delivering) if delivering.blocked);
        if let Kind::Closing { said_all, .. } = &mut conn.kind
            && drained
            && !std::mem::replace(said_all, true)
        {
            conn.socket.shutdown_write();
        }
        self.want_write(slot, !drained || blocked);
        if finished {
            self.finish_bye(slot);
        }
    }

    /// Other brokers, which deliver what this one lands in its own logs.
    pub(crate) fn find_peers(&mut self) {
        use landfall_layout::pool::BrokerState;
        let Self { env, peers, .. } = self;
        peers.clear();
        peers.extend(env.pool.known_brokers().filter(|peer| {
            *peer != env.me && env.pool.broker(*peer).state == BrokerState::Serving.raw()
        }));
    }

    /// Whether a connection is read from when something comes.
    pub(crate) fn want_read(&mut self, slot: usize, read: bool) {
        let Some(conn) = self.conns.get(slot) else { return };
        let wanted = Interest { read, ..conn.interest };
        self.set_interest(slot, wanted);
    }

    /// Whether a connection is told when it takes more.
    pub(crate) fn want_write(&mut self, slot: usize, write: bool) {
        let Some(conn) = self.conns.get(slot) else { return };
        let wanted = Interest { write, ..conn.interest };
        self.set_interest(slot, wanted);
    }

    fn set_interest(&mut self, slot: usize, wanted: Interest) {
        let Self { conns, epoll, env, .. } = self;
        let Some(conn) = conns.get(slot) else { return };
        if conn.interest == wanted {
            return;
        }
        let Some(fd) = conn.socket.fd() else { return };
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, wanted.read);
        flags.set(EpollFlags::EPOLLOUT, wanted.write);
        let mut event = EpollEvent::new(flags, conn.token.0);
        let detached = conn.interest.detached;
        let changed = if !detached {
            epoll.modify(fd, &mut event)
        } else if wanted.read {
            epoll.add(fd, event)
        } else {
            Ok(())
        };
        conn.interest = Interest { detached: detached && !wanted.read, ..wanted };
        if let Err(error) = changed {
            env.error(&format!("watch a connection: {error}"));
        }
    }
}
