//! Invitations.

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use super::{
    PREFIX,
    account::{Account, rules},
    body::mxid,
};
use crate::{
    error::{Error, Result},
    http::{
        App,
        extract::{ClientSource, MatrixJson, Object},
    },
    identity::invites::{InviteRequest, Invited, RoomId},
    signing::{PublicKey, decode_key, encode},
    source::Source,
    threepid::{Medium, Threepid},
    validation::below,
};

/// `POST /_matrix/identity/v2/store-invite` (Identity Service API, "Invitation storage").
pub(crate) async fn store(
    State(app): State<App>,
    ClientSource(source): ClientSource,
    account: Account,
    MatrixJson(body): MatrixJson,
) -> Result<Response> {
    let request = read(&body, account, source)?;
    let invited = rules(&app)?.store_invite(request).await?;
    let headers = [(header::CACHE_CONTROL, "no-store")];
    Ok((headers, Json(answer(&app, &invited))).into_response())
}

/// Reads a `store-invite`. Avatars, the room's alias and its join rules are not told, and so not asked for.
fn read(body: &Object, account: Account, source: Source) -> Result<InviteRequest> {
    if Medium::parse(body.string("medium")?) != Some(Medium::Email) {
        return Err(Error::UnknownMedium);
    }
    let (address, room_id) = (body.string("address")?, body.string("room_id")?);
    if body.string("sender")? != account.user_id {
        let why = "The key sender must be the user id of whoever asks.";
        return Err(Error::UnauthorizedUser(why.into()));
    }
    Ok(InviteRequest {
        threepid: Threepid::email(address)?,
        room_id: RoomId::parse(room_id)?,
        sender: account.user_id,
        sender_name: body.lenient_string("sender_display_name"),
        room_name: body.lenient_string("room_name"),
        room_type: body.lenient_string("room_type"),
        source,
    })
}

/// The key that signs here stands by itself too, where some homeservers look for it.
fn answer(app: &App, invited: &Invited) -> Value {
    let key = |public_key: &PublicKey, path: &str| {
        let path = format!("{}/{path}", PREFIX.trim_start_matches('/'));
        let url = below(&app.validation.settings.public_url, &path);
        json!({ "public_key": encode(public_key), "key_validity_url": url })
    };
    json!({
        "token": invited.token,
        "public_keys": [
            key(&invited.long_term_key, "pubkey/isvalid"),
            key(&invited.ephemeral_key, "pubkey/ephemeral/isvalid"),
        ],
        "public_key": encode(&invited.long_term_key),
        "display_name": invited.display_name,
    })
}

/// `POST /_matrix/identity/v2/sign-ed25519` (Identity Service API, "Ephemeral invitation signing").
pub(crate) async fn sign(
    State(app): State<App>,
    ClientSource(source): ClientSource,
    _account: Account,
    MatrixJson(body): MatrixJson,
) -> Result<Json<Map<String, Value>>> {
    let (mxid, _) = mxid(&body)?;
    let (token, private_key) = (body.string("token")?, body.string("private_key")?);
    let private_key = decode_key(private_key)
        .ok_or_else(|| Error::invalid("private_key must be 32 bytes in unpadded base64"))?;
    let signed = rules(&app)?.sign_acceptance(mxid, token, &private_key, source);
    signed.await.map(Json)
}
