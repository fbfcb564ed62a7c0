//! One thread that starts every child.
//!
//! The kernel sends a parent-death signal when the *thread* that started the child ends, so
//! children are started from a thread that lives as long as the system.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

struct Order {
    command: Command,
    answer: Sender<(Command, io::Result<Child>)>,
}

/// The thread that starts children; it ends when this is dropped.
pub(super) struct Spawner {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Spawner {
    pub(super) fn start() -> io::Result<Self> {
        let (orders, taken): (Sender<Order>, Receiver<Order>) = channel();
        let thread =
            std::thread::Builder::new().name("landfall-spawner".into()).spawn(move || {
                for mut order in taken {
                    let child = order.command.spawn();
                    // Whoever asked may be gone; then nobody wants the child either.
                    if let Err(unwanted) = order.answer.send((order.command, child))
                        && let (_, Ok(mut child)) = unwanted.0
                    {
                        let _ = child.kill();
                        let _ = child.wait();
                    }
                }
            })?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// Starts the child that `command` describes.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let gone = || io::Error::other("the thread that starts children has ended");
        let (answer, child) = channel();
        let command = std::mem::replace(command, Command::new(""));
        let orders = self.orders.as_ref().ok_or_else(gone)?;
        orders.send(Order { command, answer }).map_err(|_| gone())?;
        child.recv().map_err(|_| gone())?.1
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_started_and_a_missing_program_is_an_error() {
        let spawner = Spawner::start().unwrap();
        let mut child = spawner.spawn(&mut Command::new("true")).unwrap();
        assert!(child.wait().unwrap().success());
        let error = spawner.spawn(&mut Command::new("/nonexistent/program")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
