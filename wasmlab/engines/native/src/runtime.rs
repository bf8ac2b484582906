//! The little that `wasmer-wasix` needs around a guest: no packages, no network unless it serves, no tokio, no thread until one is
//! needed (a guest that sleeps), so that a process may fork after it has imported this.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use wasmer::Engine;
use wasmer_wasix::runtime::resolver::{MultiSource, Source};
use wasmer_wasix::runtime::task_manager::{TaskWasm, block_on};
use wasmer_wasix::virtual_net::DynVirtualNetworking;
use wasmer_wasix::{Runtime, UnsupportedVirtualNetworking, VirtualTaskManager, WasiThreadError};

use crate::net::Listening;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// Lets another thread end what a guest waits for in the host (sleep, stdin).
#[derive(Debug, Default)]
pub struct Interruption {
    asked: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Interruption {
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        for waker in self.waiting.lock().unwrap().drain(..) {
            waker.wake();
        }
    }

    /// To be called before each return of `Poll::Pending`, with a check of `asked` after it.
    pub fn subscribe(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock().unwrap();
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            // Each host call blocks with a waker of its own; those of earlier calls are of no use any more.
            waiting.clear();
            waiting.push(waker.clone());
        }
    }
}

#[derive(Debug)]
pub struct GuestRuntime {
    tasks: Arc<dyn VirtualTaskManager>,
    networking: DynVirtualNetworking,
    source: Arc<MultiSource>,
    engine: Engine,
}

impl GuestRuntime {
    /// `ports` are those that the guest may listen on.
    pub fn new(engine: Engine, interruption: Arc<Interruption>, ports: Vec<u16>) -> std::io::Result<Self> {
        let networking: DynVirtualNetworking = if ports.is_empty() {
            Arc::new(UnsupportedVirtualNetworking::default())
        } else {
            Arc::new(Listening::new(ports)?)
        };
        Ok(Self {
            tasks: Arc::new(Tasks { interruption }),
            networking,
            source: Arc::new(MultiSource::default()),
            engine,
        })
    }
}

impl Runtime for GuestRuntime {
    fn networking(&self) -> &DynVirtualNetworking {
        &self.networking
    }

    fn task_manager(&self) -> &Arc<dyn VirtualTaskManager> {
        &self.tasks
    }

    fn source(&self) -> Arc<dyn Source + Send + Sync> {
        self.source.clone()
    }

    fn engine(&self) -> Engine {
        self.engine.clone()
    }
}

#[derive(Debug)]
struct Tasks {
    interruption: Arc<Interruption>,
}

impl VirtualTaskManager for Tasks {
    fn sleep_now(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + Sync + 'static>> {
        Box::pin(Sleep { until: Instant::now() + time, interruption: self.interruption.clone() })
    }

    fn task_shared(&self, task: Box<dyn FnOnce() -> BoxFuture<()> + Send + 'static>) -> Result<(), WasiThreadError> {
        std::thread::spawn(move || block_on(task()));
        Ok(())
    }

    fn task_wasm(&self, _task: TaskWasm) -> Result<(), WasiThreadError> {
        Err(WasiThreadError::Unsupported)
    }

    fn task_dedicated(&self, task: Box<dyn FnOnce() + Send + 'static>) -> Result<(), WasiThreadError> {
        std::thread::spawn(task);
        Ok(())
    }

    fn thread_parallelism(&self) -> Result<usize, WasiThreadError> {
        Ok(1)
    }
}

struct Sleep {
    until: Instant,
    interruption: Arc<Interruption>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.interruption.subscribe(context.waker());
        if self.interruption.asked() || Instant::now() >= self.until {
            return Poll::Ready(());
        }
        wake_at(self.until, context.waker().clone());
        Poll::Pending
    }
}

struct Alarm(Instant, Waker);

impl PartialEq for Alarm {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Alarm {}
impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Alarm {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// The clock's thread, and the process that has it: a child of `fork` must start its own.
static CLOCK: Mutex<Option<(u32, Sender<Alarm>)>> = Mutex::new(None);

fn wake_at(when: Instant, waker: Waker) {
    let mut clock = CLOCK.lock().unwrap();
    let pid = std::process::id();
    if clock.as_ref().is_none_or(|(owner, _)| *owner != pid) {
        let (sender, receiver) = mpsc::channel::<Alarm>();
        std::thread::spawn(move || {
            let mut alarms: BinaryHeap<Reverse<Alarm>> = BinaryHeap::new();
            loop {
                let received = match alarms.peek() {
                    None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    Some(Reverse(next)) => receiver.recv_timeout(next.0.saturating_duration_since(Instant::now())),
                };
                match received {
                    Ok(alarm) => alarms.push(Reverse(alarm)),
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {}
                }
                let now = Instant::now();
                while alarms.peek().is_some_and(|Reverse(next)| next.0 <= now) {
                    alarms.pop().unwrap().0.1.wake();
                }
            }
        });
        *clock = Some((pid, sender));
    }
    // The thread lives as long as this sender.
    let _ = clock.as_ref().unwrap().1.send(Alarm(when, waker));
}
