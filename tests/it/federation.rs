//! Homeservers as an identity server meets them: found by their name, and asked over federation.

use crate::support::federation::FederationServer;

#[tokio::test]
async fn starts() {
    let homeserver = FederationServer::start().await;
    assert_eq!(
        homeserver.user("alice"),
        format!("@alice:{}", homeserver.name())
    );
}
