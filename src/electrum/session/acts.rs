//! Methods that change the session.

use super::Session;
use crate::chain::ScriptHash;
use crate::electrum::{
    Refusal,
    answers::{
        headers::{TipShape, write_tip},
        scripts::outpoint,
    },
    json,
    params::{Arg, Args},
    subscribed::Names,
    version::{Offer, Speaks, Version},
};

/// Methods that change the session.
impl Session {
    /// `server.version(client_name="", protocol_version="1.4")`
    pub(in crate::electrum) fn negotiate(
        &mut self,
        args: &Args,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        if matches!(self.speaks, Speaks::Agreed(version) if version >= Version::V1_4) {
            return Err(Refusal::Bad("server.version already sent".to_owned()));
        }
        let offer = match args.get(1) {
            Arg::Offer(offer) => *offer,
            _ => Offer::only(Version::UNSAID),
        };
        let max = self.asker.settings.newest();
        // From 1.6 on it "must be the first message sent"; a client that said something else before
        // gets an older version, if it speaks one.
        let chosen = if self.has_spoken {
            offer.choose(max.min(Version::V1_4_3))
        } else {
            offer.choose(max)
        };
        let Some(version) = chosen else {
            self.is_closing = true;
            return Err(Refusal::Bad(if offer.choose(max).is_some() {
                "server.version must be the first message".to_owned()
            } else {
                format!(
                    "unsupported protocol version: this server speaks {} to {max}",
                    Version::MIN
                )
            }));
        };
        self.speaks = Speaks::Agreed(version);
        let name = &self.asker.settings.server_name;
        if version < Version::V1_1 {
            json::text(out, name);
            return Ok(());
        }
        out.push(b'[');
        json::text(out, name);
        out.push(b',');
        json::text(out, &version.to_string());
        out.push(b']');
        Ok(())
    }

    /// `blockchain.headers.subscribe(raw)`: 1.0 and 1.1 know only deserialized headers, in 1.2 they are
    /// the default, in 1.3 raw ones are, and 1.4 knows no others. A session that agreed on no version gets
    /// the members of both unless it asks for one.
    pub(in crate::electrum) fn subscribe_headers(
        &mut self,
        args: &Args,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let shape = match (args.get(0), self.speaks) {
            (Arg::Flag(true), _) => TipShape::Raw,
            (Arg::Flag(false), _) => TipShape::Deserialized,
            (_, Speaks::Anything) => TipShape::Both,
            (_, Speaks::Agreed(version)) if version < Version::V1_3 => TipShape::Deserialized,
            (_, Speaks::Agreed(_)) => TipShape::Raw,
        };
        self.listener.watch_tip();
        let tip = self.asker.backend.answers().tip();
        self.tip.shape = Some(shape);
        self.tip.told = Some(tip.hash);
        write_tip(out, &tip, shape);
        Ok(())
    }

    /// `blockchain.numblocks.subscribe()`
    pub(in crate::electrum) fn subscribe_height(
        &mut self,
        _: &Args,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        self.listener.watch_tip();
        let tip = self.asker.backend.answers().tip();
        self.tip.height = true;
        self.tip.told = Some(tip.hash);
        json::integer(out, tip.height);
        Ok(())
    }

    pub(in crate::electrum) fn unsubscribe_script_hash(
        &mut self,
        args: &Args,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        self.unsubscribe(&args.script(0)?, Names::SCRIPT_HASH, out);
        Ok(())
    }

    pub(in crate::electrum) fn unsubscribe_script(
        &mut self,
        args: &Args,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        self.unsubscribe(&args.script(0)?, Names::SCRIPT, out);
        Ok(())
    }

    fn unsubscribe(&mut self, script: &ScriptHash, name: Names, out: &mut Vec<u8>) {
        let (was_subscribed, is_last) = self.subscribed.unsubscribe_script(script, name);
        if is_last {
            self.listener.unsubscribe(script);
            self.count_subscriptions();
        }
        json::boolean(out, was_subscribed);
    }

    pub(in crate::electrum) fn unsubscribe_outpoint(
        &mut self,
        args: &Args,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let outpoint = outpoint(args)?;
        let was_subscribed = self.subscribed.unsubscribe_outpoint(&outpoint);
        if was_subscribed {
            self.listener.unwatch(&outpoint);
            self.count_subscriptions();
        }
        json::boolean(out, was_subscribed);
        Ok(())
    }
}
