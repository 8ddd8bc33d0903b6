//! A homeserver's own `/register`, with what is ours to do hidden from clients (Client-Server API, "Account
//! registration").

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{Answer, Asked, Call, Client, is_user_id, segment};
use crate::{
    error::{Error, Result},
    homeserver::{
        Origin, PassedBack,
        registration::{DUMMY, NewAccount, Registered, Registering, Stages},
    },
    matrix_error::MatrixError,
    secret::AccessToken,
};

const REGISTER: &str = "/_matrix/client/v3/register";
const AVAILABLE: &str = "/_matrix/client/v3/register/available";
/// The stage that shows a token (Client-Server API, "Token-authenticated registration").
const REGISTRATION_TOKEN: &str = "m.login.registration_token";

/// More than any homeserver asks for: how many flows, how many stages in one, how long a name, and how much a client
/// needs to know for all of them, in bytes.
const MOST_FLOWS: usize = 64;
const MOST_STAGES: usize = 16;
const LONGEST_NAME: usize = 255;
const LONGEST_PARAMS: usize = 16 * 1024;

/// How we register at a homeserver that does all of it but proving addresses.
pub(in crate::homeserver) struct Overlay<'a> {
    pub(in crate::homeserver) client: &'a Client,
    /// A registration token that nobody but us knows: its stage is ours.
    pub(in crate::homeserver) token: Option<&'a AccessToken>,
    /// Whether clients do the homeserver's stages; if not, there must be none but ours.
    pub(in crate::homeserver) shows_stages: bool,
}

impl Overlay<'_> {
    /// `POST /_matrix/client/v3/register` without a stage.
    pub(in crate::homeserver) async fn start(
        &self,
        params: &Map<String, Value>,
        origin: &Origin,
    ) -> Result<Registering> {
        let asked = Asked::reading(Method::POST, REGISTER);
        let answer = self.post(asked, params, None, origin);
        self.hide(read(answer.await?)?)
    }

    /// The same with a stage of the homeserver's own. The password is told at the beginning and at the end alone: each
    /// time it is hashed.
    pub(in crate::homeserver) async fn stage(
        &self,
        params: &Map<String, Value>,
        auth: &Map<String, Value>,
        origin: &Origin,
    ) -> Result<Registering> {
        let params = without_password(params);
        let auth = Some(Value::Object(auth.clone()));
        let asked = Asked::reading(Method::POST, REGISTER);
        let answer = self.post(asked, &params, auth, origin);
        self.hide(read(answer.await?)?)
    }

    /// The same with the stages that are ours, and the client's last one if it has one.
    pub(in crate::homeserver) async fn finish(
        &self,
        account: NewAccount<'_>,
        origin: &Origin,
    ) -> Result<Registering> {
        let session = account.session;
        if let Some(token) = self.token {
            let auth =
                json!({ "type": REGISTRATION_TOKEN, "session": session, "token": token.reveal() });
            match self.show(account, auth, origin).await? {
                Registering::Stages(stages) if is_done(&stages, REGISTRATION_TOKEN) => {}
                Registering::Stages(Stages { refusal, .. }) => {
                    let code = refusal.map_or("no errcode".to_owned(), |(errcode, _)| errcode);
                    return Err(Error::HomeserverFailed(format!(
                        "the homeserver does not take the registration token ({code}): write a valid one into \
                         homeserver.registration_token_file"
                    )));
                }
                other => return Ok(other),
            }
        }
        let auth = match account.last {
            Some(last) => Value::Object(last.clone()),
            None => json!({ "type": DUMMY, "session": session }),
        };
        self.hide(self.show(account, auth, origin).await?)
    }

    /// The same with all that the client wants and an `auth`, which may make the account. Nothing is hidden from the answer.
    pub(in crate::homeserver) async fn show(
        &self,
        account: NewAccount<'_>,
        auth: Value,
        origin: &Origin,
    ) -> Result<Registering> {
        let asked = Asked::changing(Method::POST, REGISTER);
        read(self.post(asked, account.params, Some(auth), origin).await?)
    }

    /// The same in a session that is finished: the homeserver answers with the same account.
    pub(in crate::homeserver) async fn repeat(
        &self,
        account: NewAccount<'_>,
        origin: &Origin,
    ) -> Result<Registering> {
        let auth = json!({ "session": account.session });
        let params = without_password(account.params);
        let asked = Asked::changing(Method::POST, REGISTER);
        let answer = self.post(asked, &params, Some(auth), origin);
        self.hide(read(answer.await?)?)
    }

    /// What the session has made, where a homeserver that still knows the session tells so: either that account, or the
    /// stages that are to do. Where it has forgotten the session, it has made nothing if the user name is free.
    pub(in crate::homeserver) async fn made(
        &self,
        account: NewAccount<'_>,
    ) -> Result<Option<String>> {
        let mut answer = self.look(account).await?;
        if is_in_use(&answer) {
            // There are homeservers that look at the name first, which may be taken by the very account of the session.
            answer = self.ask(account, &Map::new()).await?;
        }
        match answer {
            Registering::Registered(Registered { user_id, .. }) => Ok(Some(user_id)),
            Registering::Stages(_) => Ok(None),
            Registering::Refused(_) | Registering::Lost => {
                self.check_free(account).await?;
                Ok(None)
            }
        }
    }

    /// The same as [`Overlay::repeat`] by ourselves, which opens no device.
    pub(in crate::homeserver) async fn look(&self, account: NewAccount<'_>) -> Result<Registering> {
        let mut params = without_password(account.params);
        params.insert("inhibit_login".to_owned(), Value::Bool(true));
        self.ask(account, &params).await
    }

    async fn ask(
        &self,
        account: NewAccount<'_>,
        params: &Map<String, Value>,
    ) -> Result<Registering> {
        let auth = json!({ "session": account.session });
        let asked = Asked::changing(Method::POST, REGISTER);
        let call = call(asked, params, Some(auth));
        match read(self.client.send(call).await?)? {
            Registering::Refused(answer) if answer.status == StatusCode::TOO_MANY_REQUESTS => {
                let cause = "the homeserver answers no more registrations for now (429)";
                Err(Error::HomeserverFailed(cause.to_owned()))
            }
            answer => Ok(answer),
        }
    }

    /// Checks that no account has the name that was asked for.
    ///
    /// # Errors
    /// [`Error::HomeserverTimeout`] if one has it, or no name was asked for: then nobody can tell whose account it is.
    pub(in crate::homeserver) async fn check_free(&self, account: NewAccount<'_>) -> Result<()> {
        let unknown = |why: &str| {
            Err(Error::HomeserverTimeout(format!(
                "the homeserver knows a registration no more, and {why}: whether it made an account is not known"
            )))
        };
        let Some(query) = name_query(account.params) else {
            return unknown("the client left the user name to it");
        };
        let answer = self.available(&query, &Origin::default()).await?;
        match (answer.status, errcode(&answer).as_deref()) {
            // A name that nobody can have is free too.
            (StatusCode::OK, _)
            | (StatusCode::BAD_REQUEST, Some("M_INVALID_USERNAME" | "M_EXCLUSIVE")) => Ok(()),
            (StatusCode::BAD_REQUEST, Some("M_USER_IN_USE")) => {
                unknown("somebody has the user name")
            }
            (status, code) => Err(Error::HomeserverFailed(format!(
                "the homeserver does not tell whether a user name is free: {} ({})",
                status.as_u16(),
                code.unwrap_or("no errcode")
            ))),
        }
    }

    /// `GET /_matrix/client/v3/register/available`
    pub(in crate::homeserver) async fn available(
        &self,
        query: &str,
        origin: &Origin,
    ) -> Result<PassedBack> {
        let call = Call::get(AVAILABLE, format!("{AVAILABLE}?{query}")).origin(origin);
        let answer = self.client.send(call).await?;
        if answer.status.is_server_error() || answer.object().is_none() {
            return Err(answer.fault());
        }
        Ok(answer.into_passed_back())
    }

    async fn post(
        &self,
        asked: Asked,
        params: &Map<String, Value>,
        auth: Option<Value>,
        origin: &Origin,
    ) -> Result<Answer> {
        let call = call(asked, params, auth).origin(origin);
        self.client.send(call).await
    }

    /// Takes out of the homeserver's stages what clients have nothing to do with.
    fn hide(&self, answer: Registering) -> Result<Registering> {
        let Registering::Stages(mut stages) = answer else {
            return Ok(answer);
        };
        if self.token.is_some() {
            for flow in &mut stages.flows {
                let before = flow.len();
                flow.retain(|stage| stage != REGISTRATION_TOKEN);
                // We end it, by the token: it waits as one with a dummy does.
                if flow.len() < before && !flow.iter().any(|stage| stage == DUMMY) {
                    flow.push(DUMMY.to_owned());
                }
            }
            stages.params.remove(REGISTRATION_TOKEN);
            stages.completed.retain(|stage| stage != REGISTRATION_TOKEN);
        }
        stages.completed.retain(|stage| stage != DUMMY);
        if !self.shows_stages {
            let asked_for = stages.flows.first().map(|flow| flow.join(", "));
            stages.flows.retain(|flow| *flow == [DUMMY]);
            stages.params.clear();
            if stages.flows.is_empty() {
                let asked_for = asked_for.unwrap_or_default();
                return Err(Error::HomeserverFailed(format!(
                    "the homeserver asks for more than the registration token ({asked_for}): write \
                     homeserver.registration = \"overlay\", or take it out there"
                )));
            }
        }
        Ok(Registering::Stages(stages))
    }
}

fn call(asked: Asked, params: &Map<String, Value>, auth: Option<Value>) -> Call<'static> {
    let mut body = params.clone();
    body.remove("auth");
    if let Some(auth) = auth {
        body.insert("auth".to_owned(), auth);
    }
    Call::new(asked, REGISTER.to_owned()).json(&Value::Object(body))
}

fn without_password(params: &Map<String, Value>) -> Map<String, Value> {
    let mut params = params.clone();
    params.remove("password");
    params
}

fn is_done(stages: &Stages, wanted: &str) -> bool {
    stages.completed.iter().any(|stage| stage == wanted)
}

/// The query that asks whether the user name that a client wants is free; `None` if it wants none.
pub(in crate::homeserver) fn name_query(params: &Map<String, Value>) -> Option<String> {
    let username = params.get("username").and_then(Value::as_str)?;
    Some(format!("username={}", segment(username)))
}

/// Whether somebody has the user name.
pub(in crate::homeserver) fn is_in_use(answer: &Registering) -> bool {
    matches!(answer, Registering::Refused(answer) if errcode(answer).as_deref() == Some("M_USER_IN_USE"))
}

fn errcode(answer: &PassedBack) -> Option<String> {
    let body = serde_json::from_slice(&answer.body).ok()?;
    MatrixError::read(&body, "").map(|error| error.errcode)
}

/// What an answer of `/register` is.
fn read(answer: Answer) -> Result<Registering> {
    match answer.status {
        StatusCode::OK => registered(answer).map(Registering::Registered),
        StatusCode::UNAUTHORIZED => {
            if let Some(stages) = answer.object().and_then(|body| stages(&body)) {
                return Ok(Registering::Stages(stages));
            }
            // There are homeservers that answer so to a wrong captcha.
            match answer.matrix_error() {
                Some(_) => Ok(Registering::Refused(answer.into_passed_back())),
                None => Err(answer.asked.refused("401 and no flows")),
            }
        }
        status if status.is_client_error() => match answer.matrix_error() {
            // Homeservers have no code of their own for it.
            Some(error)
                if matches!(error.errcode.as_str(), "M_UNKNOWN" | "M_FORBIDDEN")
                    && error.error.to_ascii_lowercase().contains("session") =>
            {
                Ok(Registering::Lost)
            }
            Some(_) => Ok(Registering::Refused(answer.into_passed_back())),
            None => Err(answer.fault()),
        },
        _ => Err(answer.fault()),
    }
}

/// The account in a 200 that gives one.
pub(in crate::homeserver) fn registered(answer: Answer) -> Result<Registered> {
    let asked = answer.asked.clone();
    let body = answer.body.clone();
    let object = answer.success()?;
    let user_id = object.get("user_id").and_then(Value::as_str);
    let user_id = user_id.filter(|user_id| is_user_id(user_id));
    let user_id = user_id.ok_or_else(|| asked.broken("200 and no user_id"))?;
    Ok(Registered {
        user_id: user_id.to_owned(),
        body,
    })
}

/// The flows in a 401; `None` if they have not their form.
fn stages(body: &Map<String, Value>) -> Option<Stages> {
    let session = body.get("session")?.as_str().and_then(name)?;
    let flows = body.get("flows")?.as_array()?;
    let flows = flows.iter().map(|flow| names(flow.get("stages")?));
    let flows: Vec<_> = flows.collect::<Option<_>>()?;
    let completed = match body.get("completed") {
        None | Some(Value::Null) => Vec::new(),
        Some(completed) => names(completed)?,
    };
    let params = match body.get("params") {
        None | Some(Value::Null) => Map::new(),
        Some(params) => params.as_object()?.clone(),
    };
    let is_small = flows.len() <= MOST_FLOWS
        && serde_json::to_vec(&params).is_ok_and(|text| text.len() <= LONGEST_PARAMS);
    let refusal = MatrixError::read(&Value::Object(body.clone()), "The homeserver refuses this.");
    is_small.then_some(Stages {
        session,
        flows,
        completed,
        params,
        refusal: refusal.map(|error| (error.errcode, error.error)),
    })
}

fn names(list: &Value) -> Option<Vec<String>> {
    let list = list.as_array().filter(|list| list.len() <= MOST_STAGES)?;
    list.iter().map(|text| name(text.as_str()?)).collect()
}

fn name(text: &str) -> Option<String> {
    (1..=LONGEST_NAME)
        .contains(&text.len())
        .then(|| text.to_owned())
}
