//! Both sides that the attribute makes, and what a hostile message does to them.

use std::cell::RefCell;

use enclave_interface::{CallError, Caller, Deserialize, DispatchError, Serialize, interface};
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle { radius: u32 },
    Many(Vec<Shape>),
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "u8")]
struct Even(u8);

impl TryFrom<u8> for Even {
    type Error = &'static str;

    fn try_from(n: u8) -> Result<Self, Self::Error> {
        if n.is_multiple_of(2) { Ok(Self(n)) } else { Err("odd") }
    }
}

#[interface]
trait Shapes {
    /// Parameters of all forms.
    fn all(&self, text: &str, data: &[u8], owned: Vec<u8>, number: u64, shape: Shape) -> (usize, Shape);
    fn none(&self);
    fn bytes(&self, data: &[u8]) -> Vec<u8>;
    fn perhaps(&self, data: Vec<u8>) -> Result<Vec<u8>, Shape>;
    fn even(&self, even: Even) -> Even;
    fn is_point(&self, shape: Shape) -> bool;
}

struct Server;

impl Shapes for Server {
    fn all(&self, text: &str, data: &[u8], owned: Vec<u8>, number: u64, shape: Shape) -> (usize, Shape) {
        (text.len() + data.len() + owned.len() + number as usize, shape)
    }
    fn none(&self) {}
    fn bytes(&self, data: &[u8]) -> Vec<u8> {
        data.to_vec()
    }
    fn perhaps(&self, data: Vec<u8>) -> Result<Vec<u8>, Shape> {
        if data.is_empty() { Err(Shape::Point) } else { Ok(data) }
    }
    fn even(&self, even: Even) -> Even {
        even
    }
    fn is_point(&self, shape: Shape) -> bool {
        shape == Shape::Point
    }
}

/// Calls the server, and remembers what was sent.
struct Direct(RefCell<Vec<u8>>);

impl Caller for Direct {
    type Error = DispatchError;

    fn call(&self, function: u32, arguments: &[u8]) -> Result<Vec<u8>, DispatchError> {
        *self.0.borrow_mut() = arguments.to_vec();
        Server.dispatch(function, arguments)
    }
}

/// Answers the same to everything.
struct Lying(Vec<u8>);

impl Caller for Lying {
    type Error = DispatchError;

    fn call(&self, _: u32, _: &[u8]) -> Result<Vec<u8>, DispatchError> {
        Ok(self.0.clone())
    }
}

fn client() -> ShapesClient<Direct> {
    ShapesClient(Direct(RefCell::default()))
}

#[test]
fn calls_come_through() {
    let shapes = client();
    let shape = Shape::Many(vec![Shape::Point, Shape::Circle { radius: 7 }]);
    assert_eq!(shapes.all("ab", b"cde", vec![1], 10, shape.clone()), Ok((16, shape)));
    assert_eq!(shapes.none(), Ok(()));
    assert_eq!(shapes.bytes(b"abc"), Ok(b"abc".to_vec()));
    assert_eq!(shapes.perhaps(vec![1, 2]), Ok(Ok(vec![1, 2])));
    assert_eq!(shapes.perhaps(vec![]), Ok(Err(Shape::Point)));
    assert_eq!(shapes.is_point(Shape::Point), Ok(true));
}

#[test]
fn bytes_travel_in_one_piece() {
    let shapes = client();
    shapes.bytes(&[0xff; 100]).unwrap();
    // their number, and they
    assert_eq!(shapes.0.0.borrow().len(), 101);
}

#[test]
fn a_message_is_exactly_one_value() {
    let shapes = client();
    shapes.all("ab", b"cde", vec![1], 10, Shape::Circle { radius: 300 }).unwrap();
    let message = shapes.0.0.take();
    for cut in 0..message.len() {
        assert_eq!(Server.dispatch(0, &message[..cut]), Err(DispatchError::Arguments), "{cut}");
    }
    assert_eq!(Server.dispatch(0, &[&message[..], &[0]].concat()), Err(DispatchError::Arguments));
    assert_eq!(Server.dispatch(6, &message), Err(DispatchError::NoFunction));
    // a number that is no shape's, an odd number
    assert_eq!(Server.dispatch(5, &[3]), Err(DispatchError::Arguments));
    assert_eq!(Server.dispatch(4, &[3]), Err(DispatchError::Arguments));
    // a length that nothing stands behind
    for length in [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0xff; 9], &[0xff; 10]] {
        assert_eq!(Server.dispatch(2, length), Err(DispatchError::Arguments));
        assert_eq!(Server.dispatch(5, &[&[2][..], length].concat()), Err(DispatchError::Arguments));
    }
}

#[test]
fn a_result_is_exactly_one_value() {
    assert_eq!(ShapesClient(Lying(vec![4])).even(Even(2)), Ok(Even(4)));
    for lie in [vec![], vec![5], vec![4, 0]] {
        assert_eq!(ShapesClient(Lying(lie)).even(Even(2)), Err(CallError::Result));
    }
    assert_eq!(ShapesClient(Lying(vec![0])).none(), Err(CallError::Result));
}

proptest! {
    #[test]
    fn bytes_of_any_kind_are_a_call_or_an_error(function in 0..8u32, message: Vec<u8>) {
        let _ = Server.dispatch(function, &message);
        let _ = ShapesClient(Lying(message)).all("", b"", vec![], 0, Shape::Point);
    }
}
