//! A road to the node on which each question takes its time: for what is seen of work that is done in a moment.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// It lies there as long as the stories run.
pub struct SlowRoad {
    pub begins: SocketAddr,
    is_free: Arc<AtomicBool>,
}

impl SlowRoad {
    /// From now on nothing takes its time there.
    pub fn free(&self) {
        self.is_free.store(true, Relaxed);
    }
}

pub fn slow_road(to: SocketAddr, each: Duration) -> SlowRoad {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let begins = listener.local_addr().expect("an address");
    let is_free = Arc::new(AtomicBool::new(false));
    let road = SlowRoad {
        begins,
        is_free: Arc::clone(&is_free),
    };
    thread::spawn(move || {
        for traveller in listener.incoming().map_while(Result::ok) {
            let Ok(node) = TcpStream::connect(to) else {
                continue;
            };
            let (Ok(from), Ok(back)) = (traveller.try_clone(), node.try_clone()) else {
                continue;
            };
            let is_free = Arc::clone(&is_free);
            thread::spawn(move || {
                carry(from, node, || {
                    if !is_free.load(Relaxed) {
                        thread::sleep(each);
                    }
                });
            });
            thread::spawn(move || carry(back, traveller, || ()));
        }
    });
    road
}

fn carry(mut from: TcpStream, mut to: TcpStream, pause: impl Fn()) {
    let mut bytes = [0; 1 << 16];
    while let Ok(count) = from.read(&mut bytes) {
        pause();
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
