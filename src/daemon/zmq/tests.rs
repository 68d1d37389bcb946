use zeromq::{PubSocket, SocketSend};

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn message(topic: &str, body: &[u8], counter: u32) -> ZmqMessage {
    let mut message = ZmqMessage::from(topic.to_owned());
    message.push_back(body.to_vec().into());
    message.push_back(counter.to_le_bytes().to_vec().into());
    message
}

fn sequence_body(label: u8, sequence: u64) -> Vec<u8> {
    let mut body: Vec<u8> = (0..32).collect();
    body.push(label);
    body.extend(sequence.to_le_bytes());
    body
}

/// The transaction in [`sequence_body`]: its display is the order on the wire.
fn txid() -> Txid {
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
        .parse()
        .unwrap()
}

fn notification(kind: &str, address: &str) -> ZmqNotification {
    ZmqNotification {
        kind: kind.into(),
        address: address.into(),
    }
}

#[test]
fn each_topic_is_asked_for_once_where_it_can_be_reached() {
    let found = endpoints(
        &[
            notification("pubrawblock", "tcp://127.0.0.1:1"),
            notification("pubhashblock", "ipc:///run/node"),
            notification("pubhashblock", "tcp://0.0.0.0:2"),
            notification("pubhashblock", "tcp://127.0.0.1:3"),
            notification("pubsequence", "tcp://[::]:4"),
        ],
        "node.home",
    );
    let expected = [
        ("tcp://node.home:2".to_owned(), vec![HASHBLOCK]),
        ("tcp://node.home:4".to_owned(), vec![SEQUENCE]),
    ];
    assert_eq!(found, BTreeMap::from(expected));
}

#[test]
fn messages_are_read_as_bitcoin_core_writes_them() {
    let mut counters = Counters::default();
    let mut read = |message| {
        counters
            .read(&message)
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    let added = ZmqEvent::TxAdded {
        txid: txid(),
        sequence: 7,
    };
    let removed = ZmqEvent::TxRemoved {
        txid: txid(),
        sequence: 8,
    };
    assert_eq!(
        read(message(SEQUENCE, &sequence_body(b'A', 7), 100)),
        [added]
    );
    assert_eq!(
        read(message(SEQUENCE, &sequence_body(b'R', 8), 101)),
        [removed]
    );
    let block = &sequence_body(b'C', 0)[..33];
    assert_eq!(
        read(message(SEQUENCE, block, 102)),
        [ZmqEvent::BlockChanged]
    );
    // The other topic counts for itself.
    assert_eq!(
        read(message(HASHBLOCK, &[1; 32], 5)),
        [ZmqEvent::BlockChanged]
    );
    assert_eq!(read(message("rawtx", &[1; 32], 5)), []);
}

#[test]
fn a_lost_a_repeated_and_an_unreadable_message_are_misses() {
    let mut counters = Counters::default();
    let mut read = |message| {
        counters
            .read(&message)
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    let body = sequence_body(b'A', 7);
    read(message(SEQUENCE, &body, u32::MAX));
    assert_eq!(read(message(SEQUENCE, &body, 0)).len(), 1);
    assert_eq!(read(message(SEQUENCE, &body, 2))[0], ZmqEvent::Missed);
    assert_eq!(read(message(SEQUENCE, &body, 2))[0], ZmqEvent::Missed);
    assert_eq!(read(message(SEQUENCE, &body[..20], 3)), [ZmqEvent::Missed]);
    assert_eq!(read(message(SEQUENCE, &body[..40], 4)), [ZmqEvent::Missed]);
    assert_eq!(
        read(ZmqMessage::from(SEQUENCE.to_owned())),
        [ZmqEvent::Missed]
    );
}

#[tokio::test]
async fn a_flood_that_nobody_reads_ends_in_one_miss() {
    let (events, mut receiver) = mpsc::channel(2);
    let mut out = Out {
        events,
        missed: false,
    };
    for _ in 0..100 {
        out.tell(ZmqEvent::BlockChanged);
    }
    assert_eq!(receiver.recv().await, Some(ZmqEvent::BlockChanged));
    // Now there is room, and what is owed comes without another message.
    assert!(out.settle().await);
    assert_eq!(receiver.recv().await, Some(ZmqEvent::BlockChanged));
    assert_eq!(receiver.recv().await, Some(ZmqEvent::Missed));
    out.tell(ZmqEvent::BlockChanged);
    assert_eq!(receiver.recv().await, Some(ZmqEvent::BlockChanged));
    drop(receiver);
    assert!(!out.settle().await);
}

async fn publisher(endpoint: &str) -> (PubSocket, String) {
    let mut socket = PubSocket::new();
    let bound = socket.bind(endpoint).await.unwrap();
    (socket, bound.to_string())
}

/// Publishes until an event comes that is no miss: a subscription needs its time to arrive.
async fn publish_until_heard(
    socket: &mut PubSocket,
    counter: &mut u32,
    receiver: &mut mpsc::Receiver<ZmqEvent>,
) -> Vec<ZmqEvent> {
    let mut heard = Vec::new();
    let publish = async {
        loop {
            let _ = socket.send(message(HASHBLOCK, &[1; 32], *counter)).await;
            *counter += 1;
            let event = time::timeout(Duration::from_millis(20), receiver.recv()).await;
            if let Ok(Some(event)) = event {
                heard.push(event);
                if event != ZmqEvent::Missed {
                    return;
                }
            }
        }
    };
    time::timeout(PATIENCE, publish).await.unwrap();
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_goes_and_comes_again_is_found_again_and_the_gap_is_told() {
    let (mut first, address) = publisher("tcp://127.0.0.1:0").await;
    let told = [notification("pubhashblock", &address)];
    let (feed, mut receiver) = ZmqFeed::start(&told, "127.0.0.1").unwrap();
    let mut counter = 0;
    let heard = publish_until_heard(&mut first, &mut counter, &mut receiver).await;
    assert_eq!(heard, [ZmqEvent::Missed, ZmqEvent::BlockChanged]);
    assert!(feed.is_connected() && !feed.hears_mempool());

    let failed = first.unbind_all().await;
    assert!(failed.is_empty());
    drop(first);
    let gone = async {
        while feed.is_connected() {
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    time::timeout(PATIENCE, gone).await.unwrap();
    while receiver.try_recv().is_ok() {}

    let (mut second, _) = publisher(&address).await;
    let mut counter = 0;
    let heard = publish_until_heard(&mut second, &mut counter, &mut receiver).await;
    assert_eq!(heard[0], ZmqEvent::Missed);
    assert!(feed.is_connected());
}

#[tokio::test]
async fn where_nothing_is_published_there_is_nothing_to_listen_to() {
    assert!(ZmqFeed::start(&[], "127.0.0.1").is_none());
    let told = [notification("pubhashtx", "tcp://127.0.0.1:1")];
    assert!(ZmqFeed::start(&told, "127.0.0.1").is_none());
}
