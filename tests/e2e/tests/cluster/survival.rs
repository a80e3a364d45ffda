//! What every fault must leave intact: no row lost, one writer, the same address.

use e2e::{Clients, Instance, Result, error::ensure, harness::Stage, volume};
use jiff::Timestamp;

/// A database with clients writing to it.
pub struct Watched<'a> {
    pub instance: Instance<'a>,
    pub clients: Clients<'a>,
    address: String,
    volume: String,
}

impl<'a> Watched<'a> {
    /// Creates the instance and starts its clients.
    pub fn create(stage: &Stage<'a>, name: &str, spec: &str) -> Result<Self> {
        let instance = stage.instance(name);
        instance.create(spec)?;
        Self::of(instance)
    }

    /// Starts clients of an instance that is Ready.
    pub fn of(instance: Instance<'a>) -> Result<Self> {
        let clients = Clients::start(&instance)?;
        let (address, volume) = (instance.address()?, instance.volume()?);
        Ok(Self {
            instance,
            clients,
            address,
            volume,
        })
    }

    pub fn volume(&self) -> &str {
        &self.volume
    }

    /// Waits until clients write again after a fault; yields how many seconds they could not.
    pub fn outage(&self, fault: Timestamp, limit: u64) -> Result<f64> {
        self.instance.await_ready(limit)?;
        self.clients.await_rows_after(Timestamp::now(), limit)?;
        Ok(self.clients.outage(fault, None)?.seconds)
    }

    /// The end of every test.
    pub fn check(&mut self) -> Result<()> {
        self.clients.verify()?;
        volume::one_writer(self.instance.lab(), &self.volume)?;
        let address = self.instance.address()?;
        ensure(address == self.address, || {
            format!("the address changed from {} to {address}", self.address)
        })
    }
}
