//! The network of a guest that serves: the host's, but only to listen, only by TCP, and only on the ports it was given.

use std::net::SocketAddr;

use tokio::runtime::Runtime;
use wasmer_wasix::virtual_net::host::LocalNetworking;
use wasmer_wasix::virtual_net::{
    NetworkError, Result, VirtualNetworking, VirtualTcpBoundSocket, VirtualTcpListener, VirtualTcpSocket,
};

/// Everything that is not here (UDP, names, raw sockets) is unsupported by default.
#[derive(Debug)]
pub struct Listening {
    host: LocalNetworking,
    ports: Vec<u16>,
    // `LocalNetworking` asks for one when it is made; it would resolve names there, which no guest gets to do.
    _tokio: Runtime,
}

impl Listening {
    /// Port 0 allows all. Starts the thread that waits for sockets.
    pub fn new(ports: Vec<u16>) -> std::io::Result<Self> {
        let tokio = tokio::runtime::Builder::new_current_thread().build()?;
        let host = {
            let _entered = tokio.enter();
            LocalNetworking::new()
        };
        Ok(Self { host, ports, _tokio: tokio })
    }

    fn allow(&self, address: SocketAddr) -> Result<()> {
        if self.ports.iter().any(|port| [0, address.port()].contains(port)) {
            Ok(())
        } else {
            Err(NetworkError::PermissionDenied)
        }
    }
}

#[async_trait::async_trait]
impl VirtualNetworking for Listening {
    async fn listen_tcp(
        &self,
        address: SocketAddr,
        only_v6: bool,
        reuse_port: bool,
        reuse_addr: bool,
    ) -> Result<Box<dyn VirtualTcpListener + Sync>> {
        self.bind_tcp(address, only_v6, reuse_port, reuse_addr).await?.listen()
    }

    /// The port belongs to one guest: none shares it, and one that was started again does not wait for connections of
    /// its predecessor to be forgotten.
    async fn bind_tcp(
        &self,
        address: SocketAddr,
        only_v6: bool,
        _reuse_port: bool,
        _reuse_addr: bool,
    ) -> Result<Box<dyn VirtualTcpBoundSocket + Sync>> {
        self.allow(address)?;
        let bound = self.host.bind_tcp(address, only_v6, false, true).await?;
        Ok(Box::new(Bound(bound)))
    }

    async fn connect_tcp(&self, _address: SocketAddr, _peer: SocketAddr) -> Result<Box<dyn VirtualTcpSocket + Sync>> {
        Err(NetworkError::PermissionDenied)
    }
}

/// A bound socket that listens, and does not connect.
#[derive(Debug)]
struct Bound(Box<dyn VirtualTcpBoundSocket + Sync>);

impl VirtualTcpBoundSocket for Bound {
    fn addr_local(&self) -> Result<SocketAddr> {
        self.0.addr_local()
    }

    fn listen(&mut self) -> Result<Box<dyn VirtualTcpListener + Sync>> {
        self.0.listen()
    }

    fn connect(&mut self, _peer: SocketAddr) -> Result<Box<dyn VirtualTcpSocket + Sync>> {
        Err(NetworkError::PermissionDenied)
    }

    fn set_ttl(&mut self, ttl: u32) -> Result<()> {
        self.0.set_ttl(ttl)
    }

    fn ttl(&self) -> Result<u32> {
        self.0.ttl()
    }
}
