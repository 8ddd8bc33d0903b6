//! What a homeserver of the tests is to be like.

use super::{
    homeserver::{Homeserver, Recipe},
    synapse::Options,
};

/// Where an app runs that lets people sign up; whoever listens there.
pub(crate) const APP: &str = "http://127.0.0.1:8080/";
/// A registration token that only the program knows.
pub(crate) const PRIVATE_TOKEN: &str = "0123456789abcdefghijklmnopqrstuv";

/// What a homeserver is to be like.
pub(crate) struct Plan {
    pub(super) recipe: Recipe,
    pub(super) options: Options,
    pub(super) is_gated: bool,
    /// Settings of the program.
    pub(super) settings: Vec<(&'static str, String)>,
    /// Registration tokens that Synapse takes.
    pub(super) tokens: Vec<&'static str>,
}

impl Plan {
    /// One with a Synapse like all others.
    pub(crate) fn new(recipe: Recipe) -> Self {
        Self {
            recipe,
            options: Options::default(),
            is_gated: false,
            settings: Vec::new(),
            tokens: Vec::new(),
        }
    }

    /// One where people sign up, with a Synapse that is open to all who do what these options ask for.
    pub(crate) fn open(options: Options) -> Self {
        let app = APP.trim_start_matches("http://").trim_end_matches('/');
        Self::new(Recipe::Sidecar)
            .options(options.open())
            .set("next_links.allowed", app)
    }

    /// The same for another recipe.
    pub(crate) fn recipe(self, recipe: Recipe) -> Self {
        Self { recipe, ..self }
    }

    /// The same with a Synapse that differs.
    pub(crate) fn options(self, options: Options) -> Self {
        Self { options, ..self }
    }

    /// The same, of which each change of an account can be held on its way to Synapse.
    pub(crate) fn gated(self) -> Self {
        Self {
            is_gated: true,
            ..self
        }
    }

    /// The same with a setting of the program.
    pub(crate) fn set(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.settings.push((key, value.into()));
        self
    }

    /// The same with a registration token, of which Synapse wants one.
    pub(crate) fn token(mut self, token: &'static str) -> Self {
        self.tokens.push(token);
        self.options = self.options.asking_for_tokens();
        self
    }

    /// The same with a registration token that only the program knows.
    pub(crate) fn private_token(self) -> Self {
        self.token(PRIVATE_TOKEN)
            .set("homeserver.registration_token", PRIVATE_TOKEN)
    }

    /// Starts it.
    pub(crate) async fn start(self) -> Homeserver {
        Homeserver::build(self).await
    }
}
