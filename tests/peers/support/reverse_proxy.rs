//! Reverse proxies, each with a configuration that `deploy/` offers.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

/// The name that the configurations hold.
pub(crate) const HOST: &str = "matrix.example.org";

/// A program that is ended by its id.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Takes care of a child.
    pub(crate) fn new(child: Child) -> Self {
        Self(child)
    }

    /// Ends it at once.
    pub(crate) fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts nginx with its state in `folder`, and with nothing but ports, certificate and log changed in its recipe.
///
/// `ports` are the addresses in the recipe, and those that stand for them here.
pub(crate) fn nginx(folder: &Path, recipe: &str, port: u16, ports: &[(&str, String)]) -> Process {
    let inside = |name: &str| folder.join(name).display().to_string();
    let mut changes = vec![
        ("listen 443 ssl;", format!("listen 127.0.0.1:{port} ssl;")),
        ("listen [::]:443 ssl;", String::new()),
        (
            "/etc/letsencrypt/live/matrix.example.org/fullchain.pem",
            inside("site.pem"),
        ),
        (
            "/etc/letsencrypt/live/matrix.example.org/privkey.pem",
            inside("site.key"),
        ),
        ("/var/log/nginx/matrix.access.log", inside("access.log")),
    ];
    changes.extend_from_slice(ports);
    let site = changed(recipe, &changes);
    fs::write(folder.join("site.conf"), site).expect("the folder can be written");
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|name| format!("{name}_temp_path {};", inside(name)));
    let main = format!(
        "daemon off; master_process off; pid {}; events {{}} http {{ {} include {}; }}",
        inside("nginx.pid"),
        temporary.concat(),
        inside("site.conf")
    );
    fs::write(folder.join("nginx.conf"), main).expect("the folder can be written");
    let mut command = Command::new("nginx");
    command.arg("-c").arg(folder.join("nginx.conf"));
    command.arg("-e").arg(folder.join("error.log"));
    start(command, folder)
}

/// The same with Caddy.
pub(crate) fn caddy(folder: &Path, recipe: &str, port: u16, ports: &[(&str, String)]) -> Process {
    let inside = |name: &str| folder.join(name).display().to_string();
    let mut changes = vec![
        // No port for its administration, and no certificates but ours: it would ask others for them, and have the system
        // trust its own.
        (
            "\n{\n",
            "\n{\nadmin off\nauto_https off\nskip_install_trust\n".to_owned(),
        ),
        (
            "\nmatrix.example.org {\n",
            format!(
                "\nhttps://{HOST}:{port} {{\ntls {} {}\n",
                inside("site.pem"),
                inside("site.key")
            ),
        ),
        ("/var/log/caddy/matrix.access.log", inside("access.log")),
    ];
    changes.extend_from_slice(ports);
    let site = changed(recipe, &changes);
    fs::write(folder.join("Caddyfile"), site).expect("the folder can be written");
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]);
    command.arg(folder.join("Caddyfile"));
    command
        .env("XDG_DATA_HOME", folder)
        .env("XDG_CONFIG_HOME", folder);
    start(command, folder)
}

/// The same with `HAProxy`.
pub(crate) fn haproxy(folder: &Path, recipe: &str, port: u16, ports: &[(&str, String)]) -> Process {
    const CERTIFICATE: &str = "/etc/haproxy/matrix.example.org.pem";
    let inside = |name: &str| folder.join(name).display().to_string();
    let read = |name: &str| fs::read_to_string(inside(name)).expect("the certificate is made");
    let both = read("site.pem") + &read("site.key");
    fs::write(inside("both.pem"), both).expect("the folder can be written");
    let mut changes = vec![
        (
            "log /dev/log local0",
            "log stdout format raw local0".to_owned(),
        ),
        // Whoever runs the tests may not be able to become somebody else.
        ("\n    chroot /var/lib/haproxy\n", "\n".to_owned()),
        ("\n    user haproxy\n", "\n".to_owned()),
        ("\n    group haproxy\n", "\n".to_owned()),
        (
            "bind [::]:443 v6only ssl crt /etc/haproxy/matrix.example.org.pem alpn h2,http/1.1",
            String::new(),
        ),
        ("bind :443 ssl", format!("bind 127.0.0.1:{port} ssl")),
        (CERTIFICATE, inside("both.pem")),
    ];
    changes.extend_from_slice(ports);
    let site = changed(recipe, &changes);
    fs::write(folder.join("haproxy.cfg"), site).expect("the folder can be written");
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(folder.join("haproxy.cfg"));
    start(command, folder)
}

/// The text with each of `changes` made; a text that lacks one is not the one we know.
fn changed(text: &str, changes: &[(&str, String)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from:?} stands in the configuration");
        text.replace(from, to)
    })
}

fn start(mut command: Command, folder: &Path) -> Process {
    let output = File::create(folder.join("output.log")).expect("the folder can be written");
    let errors = output.try_clone().expect("a file can be opened twice");
    let child = command.stdin(Stdio::null()).stdout(output).stderr(errors);
    Process(child.spawn().expect("the proxy starts"))
}

/// Makes `site.pem` and `site.key` for [`HOST`] and for loopback: a certificate that is its own authority.
pub(crate) fn make_certificate(folder: &Path) {
    let name = format!("/CN={HOST}");
    let made = Command::new("openssl")
        .current_dir(folder)
        .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
        .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", &name])
        .args([
            "-addext",
            &format!("subjectAltName=DNS:{HOST},IP:127.0.0.1"),
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "site.key", "-out", "site.pem"])
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{made:?}");
}

/// Installs what is missing, once, where that is allowed.
pub(crate) fn need_programs() {
    const INSTALL: &str = "apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends \
                           nginx-light caddy haproxy curl openssl";
    static READY: OnceLock<()> = OnceLock::new();
    let runs = |command: &str| {
        let mut shell = Command::new("sh");
        // The services of the packages are not to be started.
        shell.args(["-c", command]).env("RUNLEVEL", "1");
        shell.env("DEBIAN_FRONTEND", "noninteractive");
        let output = shell.stdin(Stdio::null()).output();
        output.is_ok_and(|output| output.status.success())
    };
    let programs = ["nginx", "caddy", "haproxy", "curl", "openssl"];
    let there = || {
        let mut programs = programs.iter();
        programs.all(|program| runs(&format!("command -v {program}")))
    };
    READY.get_or_init(|| {
        if there() {
            return;
        }
        let is_root = runs("test \"$(id -u)\" = 0");
        let installed = is_root && (runs(INSTALL) || (runs("apt-get update") && runs(INSTALL)));
        assert!(
            installed && there(),
            "{programs:?} are needed; run as root: {INSTALL}"
        );
    });
}
