//! WebSocket endpoints (RFC 6455).

mod driver;
mod handshake;
mod inbox;
mod message;
mod metered;
mod origin;
mod servlet;
mod socket;
mod test_socket;

pub use message::{CloseReason, Message, Text};
pub use servlet::{IntoClose, WebSocketServlet, websocket};
pub use socket::{Receiver, SendError, Sender, WebSocket};
pub use test_socket::TestSocket;
