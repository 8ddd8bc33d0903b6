//! matrix-js-sdk, the library of Element Web, in a process of its own that does what it is told.

use std::{path::Path, process::Stdio};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::{install::node_modules_with, newcomer::DEVICE, plan::APP, server::PATIENCE};

/// The release that is installed: the newest for Node 20.
const JS_SDK: &str = "matrix-js-sdk@37.5.0";
/// The script that runs it.
const DRIVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/js/driver.mjs");

/// What the library rejects a call with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rejected {
    /// The status of the answer; `None` if there was no answer.
    pub(crate) status: Option<u64>,
    /// Empty if the answer had none.
    pub(crate) errcode: String,
    /// The body of the answer.
    pub(crate) data: Value,
}

/// One client. Dropped, it is killed.
pub(crate) struct JsSdk {
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Killed by its id when it is dropped.
    _child: Child,
}

impl JsSdk {
    /// Installs it if need be, and starts a client of the homeserver at `base`, whose certificate `authority` signed.
    pub(crate) fn start(base: &str, authority: Option<&Path>) -> Self {
        let mut command = Command::new("node");
        command
            .arg(DRIVER)
            .arg(node_modules_with(JS_SDK))
            .arg(base)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        if let Some(authority) = authority {
            command.env("NODE_EXTRA_CA_CERTS", authority);
        }
        let mut child = command.spawn().expect("node starts");
        Self {
            commands: child.stdin.take().expect("it is piped"),
            answers: BufReader::new(child.stdout.take().expect("it is piped")).lines(),
            _child: child,
        }
    }

    /// Calls a method of the `MatrixClient` with a list of arguments.
    pub(crate) async fn call(&mut self, method: &str, arguments: Value) -> Result<Value, Rejected> {
        let command = json!({ "do": method, "with": arguments });
        let line = format!("{command}\n");
        let told = self.commands.write_all(line.as_bytes()).await;
        told.expect("node reads commands");
        let answer = timeout(PATIENCE, self.answers.next_line()).await;
        let answer = answer.expect("it answers in time").expect("it says text");
        let answer = answer.expect("node did not end");
        let mut answer: Value = serde_json::from_str(&answer).expect("it says JSON");
        let Some(error) = answer.get_mut("error") else {
            return Ok(answer["ok"].take());
        };
        Err(Rejected {
            status: error["httpStatus"].as_u64(),
            errcode: error["errcode"].as_str().unwrap_or_default().to_owned(),
            data: error["data"].take(),
        })
    }

    /// The same for a call that succeeds.
    pub(crate) async fn must(&mut self, method: &str, arguments: Value) -> Value {
        let answer = self.call(method, arguments).await;
        answer.unwrap_or_else(|why| panic!("{method}: {why:?}"))
    }

    /// The same for a call that is refused.
    pub(crate) async fn refused(&mut self, method: &str, arguments: Value) -> Rejected {
        let answer = self.call(method, arguments).await;
        answer.expect_err(method)
    }

    /// Logs in, for all calls after this one; the access token.
    pub(crate) async fn login(&mut self, localpart: &str, password: &str) -> String {
        let answer = self.must("login", json!([localpart, password])).await;
        let token = answer["access_token"].as_str();
        token.expect("a login gives a token").to_owned()
    }

    /// Opens a page of this name on which somebody signs up, as Element Web does, and lets it ask for the stages and for
    /// the first mail; what it has come to.
    ///
    /// `register` is the body without `auth`; `inputs` hold `emailAddress`, or `phoneCountry` and `phoneNumber`.
    pub(crate) async fn open_tab(&mut self, tab: &str, register: &Value, inputs: Value) -> Value {
        let options = json!({ "app": APP, "register": register, "inputs": inputs });
        self.must("openTab", json!([tab, options])).await
    }

    /// Opens the page that the button behind a mailed link leads to. It knows nothing but what stands in `target`.
    pub(crate) async fn open_link(&mut self, tab: &str, target: &str) -> Value {
        let register = json!({ "initial_device_display_name": DEVICE });
        let opened = json!([tab, target, register]);
        self.must("openLink", opened).await
    }

    /// Does a stage in a page; what it has come to.
    pub(crate) async fn submit(&mut self, tab: &str, auth: Value) -> Value {
        self.must("submitInTab", json!([tab, auth])).await
    }

    /// Lets a page look whether its stage is done, as it does every two seconds; what it has come to.
    pub(crate) async fn poll(&mut self, tab: &str) -> Value {
        self.must("pollInTab", json!([tab])).await
    }
}
