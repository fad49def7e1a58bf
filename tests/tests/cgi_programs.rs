//! Programs from Debian's packages behind CGI: Git's own HTTP server, gitweb, cgit, and a form in Perl with CGI.pm.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use wharf_tests::{Site, Wharf, is_required, wait};

/// Whether the files are there; a test that needs them is skipped else, if it may be.
fn is_there(files: &[&str]) -> bool {
    let missing = files.iter().find(|f| !Path::new(f).exists());
    if let Some(missing) = missing {
        assert!(!is_required(), "{missing} is not installed");
        println!("skipped: {missing} is not installed");
    }
    missing.is_none()
}

const BACKEND: &str = "/usr/lib/git-core/git-http-backend";

/// Git without the user's settings.
fn git_command(site: &Site, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "init.defaultBranch=main"]);
    command.args(arguments).current_dir(site.path("")).stdin(Stdio::null());
    command.env("HOME", site.path("")).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command
}

fn git_output(site: &Site, arguments: &[&str]) -> Output {
    git_command(site, arguments).output().expect("git runs")
}

fn git(site: &Site, arguments: &[&str]) -> String {
    let output = git_output(site, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {error}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A folder of repositories with one of three commits, `shop.git`.
fn repositories() -> Site {
    let site = Site::new();
    git(&site, &["init", "--quiet", "work"]);
    for n in 1..=3 {
        site.put("work/README", format!("version {n}\n"));
        git(&site, &["-C", "work", "add", "README"]);
        git(&site, &["-C", "work", "commit", "--quiet", "-m", &format!("Commit {n}")]);
    }
    git(&site, &["clone", "--quiet", "--bare", "work", "git/shop.git"]);
    site
}

fn toml(site: &Site, rest: &str) -> String {
    let root = fs::canonicalize(site.path("git")).unwrap();
    format!("kind = \"cgi\"\nroot = \"{}\"\n{rest}", root.display())
}

fn backend(site: &Site, env: &str) -> String {
    let root = fs::canonicalize(site.path("git")).unwrap();
    let env = format!("GIT_PROJECT_ROOT = \"{}\"\nGIT_HTTP_EXPORT_ALL = \"1\"\n{env}", root.display());
    toml(site, &format!("[cgi]\nprogram = \"{BACKEND}\"\n[cgi.env]\n{env}"))
}

fn start(site: Site) -> Wharf {
    let wharf = site.start(&["--set", "server.limits.body=209715200"]);
    for app in wharf.list() {
        assert_eq!(app["state"], "serving", "{app}");
    }
    wharf
}

#[test]
fn git_clones_fetches_and_pushes() {
    if !is_there(&[BACKEND]) {
        return;
    }
    let site = repositories();
    site.put("deploy/git.toml", backend(&site, ""));
    site.put("deploy/ann.toml", backend(&site, "REMOTE_USER = \"ann\"\nREMOTE_ADDR = \"192.0.2.1\"\n"));
    let wharf = start(site);
    let (read, write) =
        (format!("http://{}/git/shop.git", wharf.addr()), format!("http://{}/ann/shop.git", wharf.addr()));

    git(&wharf, &["clone", "--quiet", &read, "clone"]);
    assert_eq!(fs::read_to_string(wharf.path("clone/README")).unwrap(), "version 3\n");
    git(&wharf, &["clone", "--quiet", "--depth", "1", &read, "shallow"]);
    assert_eq!(git(&wharf, &["-C", "shallow", "rev-list", "--count", "HEAD"]), "1");
    git(&wharf, &["-C", "shallow", "fetch", "--quiet", "--deepen", "1"]);
    assert_eq!(git(&wharf, &["-C", "shallow", "rev-list", "--count", "HEAD"]), "2");
    // The old protocol asks for files by their path.
    git(&wharf, &["-c", "protocol.version=0", "clone", "--quiet", &read, "old"]);

    // 50 MB that no compression makes smaller: Git sends them in chunks, of which it does not know how many there will be.
    let mut random = vec![0; 50_000_000];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for word in random.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    fs::write(wharf.path("clone/large"), random).unwrap();
    git(&wharf, &["-C", "clone", "add", "large"]);
    git(&wharf, &["-C", "clone", "commit", "--quiet", "-m", "Large"]);
    // Without a user nobody may write.
    let refused = git_output(&wharf, &["-C", "clone", "push", "--quiet", &read, "main"]);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("403"), "{error}");
    let trace =
        git_command(&wharf, &["-C", "clone", "push", &write, "main"]).env("GIT_CURL_VERBOSE", "1").output().unwrap();
    let error = String::from_utf8_lossy(&trace.stderr);
    assert!(trace.status.success(), "{error}");
    assert!(error.to_lowercase().contains("transfer-encoding: chunked"), "{error}");
    let head = git(&wharf, &["-C", "clone", "rev-parse", "HEAD"]);
    assert_eq!(git(&wharf, &["-C", "git/shop.git", "rev-parse", "main"]), head);
    git(&wharf, &["-C", "git/shop.git", "fsck"]);
    git(&wharf, &["clone", "--quiet", &read, "again"]);
    assert_eq!(fs::metadata(wharf.path("again/large")).unwrap().len(), 50_000_000);
}

#[test]
fn git_signs_in_with_a_password_that_a_program_checks() {
    if !is_there(&[BACKEND]) {
        return;
    }
    let site = repositories();
    // The program that decides who REMOTE_USER is stands in front of the one that believes it.
    let script = format!(
        "#!/bin/sh\nif [ \"$HTTP_AUTHORIZATION\" != 'Basic YW5uOnNlY3JldA==' ]; then\n  printf 'Status: 401 Unauthorized\\nWWW-Authenticate: Basic realm=\"git\"\\nContent-Type: text/plain\\n\\nno\\n'\n  exit\nfi\nexport REMOTE_USER=ann\nexec {BACKEND}\n"
    );
    fs::write(site.path("git/sign-in"), script).unwrap();
    fs::set_permissions(site.path("git/sign-in"), fs::Permissions::from_mode(0o755)).unwrap();
    let root = fs::canonicalize(site.path("git")).unwrap();
    let options = format!(
        "[cgi]\nprogram = \"sign-in\"\npass_authorization = true\n[cgi.env]\nGIT_PROJECT_ROOT = \"{}\"\nGIT_HTTP_EXPORT_ALL = \"1\"\n",
        root.display()
    );
    site.put("deploy/git.toml", toml(&site, &options));
    let wharf = start(site);
    let url = |user: &str| format!("http://{user}{}/git/shop.git", wharf.addr());
    for user in ["", "ann:wrong@"] {
        let refused = git_output(&wharf, &["clone", "--quiet", &url(user), "refused"]);
        assert!(!refused.status.success(), "{user}");
    }
    git(&wharf, &["clone", "--quiet", &url("ann:secret@"), "clone"]);
    git(&wharf, &["-C", "clone", "commit", "--quiet", "--allow-empty", "-m", "Empty"]);
    git(&wharf, &["-C", "clone", "push", "--quiet", "origin", "main"]);
    let head = git(&wharf, &["-C", "clone", "rev-parse", "HEAD"]);
    assert_eq!(git(&wharf, &["-C", "git/shop.git", "rev-parse", "main"]), head);
}

#[test]
fn gitweb_and_cgit_show_a_repository() {
    if !is_there(&["/usr/share/gitweb/gitweb.cgi", "/usr/lib/cgit/cgit.cgi", "/usr/share/perl5/CGI.pm"]) {
        return;
    }
    let site = repositories();
    let root = fs::canonicalize(site.path("git")).unwrap();
    site.put("gitweb.conf", format!("$projectroot = '{}';\n", root.display()));
    site.put("cgitrc", format!("virtual-root=/cgit\nscan-path={}\n", root.display()));
    let config = |name: &str| fs::canonicalize(site.path(name)).unwrap().display().to_string();
    let gitweb = format!(
        "[cgi]\nprogram = \"/usr/share/gitweb/gitweb.cgi\"\nenv = {{ GITWEB_CONFIG = \"{}\" }}\n",
        config("gitweb.conf")
    );
    let cgit =
        format!("[cgi]\nprogram = \"/usr/lib/cgit/cgit.cgi\"\nenv = {{ CGIT_CONFIG = \"{}\" }}\n", config("cgitrc"));
    site.put("deploy/gitweb.toml", toml(&site, &gitweb));
    site.put("deploy/cgit.toml", toml(&site, &cgit));
    let wharf = start(site);
    for (path, words) in [
        ("/gitweb/", &["shop.git", "text/html"][..]),
        ("/gitweb/?p=shop.git;a=summary", &["Commit 3", "Commit 1"]),
        ("/gitweb/?p=shop.git;a=blob_plain;f=README", &["version 3"]),
        ("/cgit/", &["shop"]),
        ("/cgit/shop.git/log/", &["Commit 3", "Commit 1"]),
        ("/cgit/shop.git/plain/README", &["version 3"]),
    ] {
        let answer = wharf.get(path);
        let all = format!("{:?}{}", answer.headers, answer.text());
        assert_eq!(answer.status, 200, "{path}: {all}");
        for word in words {
            assert!(all.contains(word), "{path}: no {word} in {all}");
        }
    }
    assert_eq!(wharf.get("/gitweb/?p=none.git").status, 404);
}

#[test]
fn a_perl_form_takes_an_upload() {
    if !is_there(&["/usr/bin/perl", "/usr/share/perl5/CGI.pm"]) {
        return;
    }
    let site = Site::new().with("deploy/form/app.toml", "kind = \"cgi\"\n[cgi]\nextensions = [\"pl\"]\n");
    let form = r#"#!/usr/bin/perl
use strict;
use warnings;
use CGI;
my $q = CGI->new;
print $q->header(-type => 'text/plain', -charset => 'utf-8', -cookie => $q->cookie(-name => 'seen', -value => 'yes'));
my $file = $q->upload('picture');
my ($size, $sum) = (0, 0);
if ($file) { binmode $file; local $/ = \65536; while (my $part = <$file>) { $size += length $part; $sum += unpack('%32C*', $part); } }
print "name=", scalar $q->param('name'), "\nfile=", scalar $q->param('picture'), "\nsize=$size\nsum=$sum\n";
print "url=", $q->url(-path_info => 1), "\n";
"#;
    let temporary = site.temporary("deploy/form/form.pl");
    fs::write(&temporary, form).unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755)).unwrap();
    site.rename(&temporary, "deploy/form/form.pl");
    let wharf = start(site);
    let picture: Vec<u8> = (0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut body = b"--XX\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nAda & Co\r\n--XX\r\nContent-Disposition: form-data; name=\"picture\"; filename=\"../a b.png\"\r\nContent-Type: image/png\r\n\r\n".to_vec();
    body.extend_from_slice(&picture);
    body.extend_from_slice(b"\r\n--XX--\r\n");
    let headers = [("Content-Type", "multipart/form-data; boundary=XX"), ("Host", "example.org")];
    let answer = wharf.send("POST", "/form/form.pl/more?x=y", &headers, &body);
    let sum: u64 = picture.iter().map(|b| u64::from(*b)).sum();
    let text = answer.text();
    assert_eq!(answer.status, 200, "{text}");
    assert!(answer.header("set-cookie").is_some_and(|c| c.starts_with("seen=yes")), "{answer:?}");
    for line in ["name=Ada & Co", "size=3000000", &format!("sum={sum}")] {
        assert!(text.lines().any(|l| l == line), "no {line} in {text}");
    }
    assert!(text.contains("/form/form.pl/more"), "{text}");
    let plain = wharf.send(
        "POST",
        "/form/form.pl",
        &[("Content-Type", "application/x-www-form-urlencoded")],
        b"name=B%C3%B6%2B+1",
    );
    assert!(plain.text().contains("name=Bö+ 1\n"), "{}", plain.text());
    assert_eq!(wharf.get("/form/form.pl?name=get").text().lines().next(), Some("name=get"));
    wait("the log", || (!wharf.log().contains("ERROR")).then_some(()));
}
