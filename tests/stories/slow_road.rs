//! A road to the node on which each question takes its time: for what is seen of work that is done in a moment.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

/// Where the road begins. It lies there as long as the stories run.
pub fn slow_road(to: SocketAddr, each: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let begins = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for traveller in listener.incoming().map_while(Result::ok) {
            let Ok(node) = TcpStream::connect(to) else {
                continue;
            };
            let (Ok(from), Ok(back)) = (traveller.try_clone(), node.try_clone()) else {
                continue;
            };
            thread::spawn(move || carry(from, node, each));
            thread::spawn(move || carry(back, traveller, Duration::ZERO));
        }
    });
    begins
}

fn carry(mut from: TcpStream, mut to: TcpStream, each: Duration) {
    let mut bytes = [0; 1 << 16];
    while let Ok(count) = from.read(&mut bytes) {
        thread::sleep(each);
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
