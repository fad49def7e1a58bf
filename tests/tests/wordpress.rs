//! WordPress from Debian's package, on php-fpm behind the container and MariaDB: from its set-up page to a first post.

use std::fs;

use wharf_tests::{Browser, Database, Engine, Fpm, Site, copy, fpm_program, installed};

const CONFIG: &str = r#"<?php
define('DB_NAME', 'wharf'); define('DB_USER', 'root'); define('DB_PASSWORD', ''); define('DB_HOST', '127.0.0.1:PORT');
define('DB_CHARSET', 'utf8mb4'); define('DB_COLLATE', '');
define('WP_HOME', 'http://' . $_SERVER['HTTP_HOST'] . '/blog'); define('WP_SITEURL', WP_HOME);
define('WP_HTTP_BLOCK_EXTERNAL', true); define('DISABLE_WP_CRON', true); define('AUTOMATIC_UPDATER_DISABLED', true); define('WP_DEFAULT_THEME', 'harbour');
define('AUTH_KEY', 'a'); define('SECURE_AUTH_KEY', 'b'); define('LOGGED_IN_KEY', 'c'); define('NONCE_KEY', 'd');
define('AUTH_SALT', 'e'); define('SECURE_AUTH_SALT', 'f'); define('LOGGED_IN_SALT', 'g'); define('NONCE_SALT', 'h');
$table_prefix = 'wp_';
if (!defined('ABSPATH')) { define('ABSPATH', __DIR__ . '/'); }
require_once ABSPATH . 'wp-settings.php';
"#;

/// Themes are packages of their own, with a version in their names.
const THEME: &str = r#"<?php ?><!doctype html><html><head><title><?php bloginfo('name'); ?></title><?php wp_head(); ?></head><body>
<h1><?php bloginfo('name'); ?></h1>
<?php while (have_posts()) { the_post(); the_title('<h2>', '</h2>'); the_content(); } wp_footer(); ?></body></html>"#;

/// No mail leaves the machine, and none is waited for.
const NO_MAIL: &str = "<?php function wp_mail() { return true; }";

const OPTIONS: &str = "fallback = \"/index.php\"\nno_execute = [\"wp-content/uploads\"]\ndeny = [\"wp-content/languages\"]\nmax_connections = 2\n";

#[test]
fn from_the_set_up_page_to_a_first_post() {
    if !installed(&[&fpm_program(), "/usr/share/wordpress/wp-load.php"]) {
        return;
    }
    let Some(database) = Database::start(Engine::MariaDb) else { return };
    let site = Site::new();
    fs::create_dir_all(site.path("deploy")).unwrap();
    copy("/usr/share/wordpress", &site.path("deploy/blog"));
    let url = database.url();
    let port = url.rsplit(':').next().unwrap().split('/').next().unwrap();
    let _ = fs::remove_file(site.path("deploy/blog/wp-config.php"));
    site.put("deploy/blog/wp-config.php", CONFIG.replace("PORT", port));
    site.put("deploy/blog/wp-content/themes/harbour/style.css", "/* Theme Name: Harbour */");
    site.put("deploy/blog/wp-content/themes/harbour/index.php", THEME);
    site.put("deploy/blog/wp-content/mu-plugins/no-mail.php", NO_MAIL);
    fs::create_dir_all(site.path("deploy/blog/wp-content/uploads")).unwrap();
    let fpm = Fpm::start(&site, "php_admin_value[display_errors] = 0\n");
    let wharf = site.with("deploy/blog/app.toml", fpm.toml(OPTIONS)).start(&[]);

    let mut browser = Browser::new(&wharf);
    let form = browser.get("/blog/");
    assert!(form.text().contains("name=\"weblog_title\""), "{} {}", form.status, form.text());
    let fields = [
        ("weblog_title", "Harbour & Sea"),
        ("user_name", "ann"),
        ("admin_password", "quay-side-42"),
        ("admin_password2", "quay-side-42"),
        ("pw_weak", "on"),
        ("admin_email", "ann@example.org"),
        ("blog_public", "0"),
        ("Submit", "Install WordPress"),
    ];
    let done = browser.post("/blog/wp-admin/install.php?step=2", &fields);
    assert!(done.text().contains("WordPress has been installed"), "{} {}", done.status, done.text());

    // In by the form, with the cookie that it asks for.
    let stranger = browser.get("/blog/wp-admin/");
    assert!(stranger.text().contains("id=\"loginform\""), "{} {}", stranger.status, stranger.text());
    let login = |password| [("log", "ann"), ("pwd", password), ("wp-submit", "Log In"), ("testcookie", "1")];
    let wrong = browser.post("/blog/wp-login.php", &login("wrong"));
    assert!(wrong.text().contains("login_error"), "{} {}", wrong.status, wrong.text());
    let inside = browser.post("/blog/wp-login.php", &login("quay-side-42"));
    assert!(inside.text().contains("wp-admin-bar-logout"), "{} {}", inside.status, inside.text());

    // A first post, by the interface that the editor uses.
    let nonce = browser.get("/blog/wp-admin/admin-ajax.php?action=rest-nonce").text();
    let json = r#"{"title":"Cutty Sark","content":"<p>A <strong>clipper</strong> ship.</p>","status":"publish"}"#;
    let headers = [("X-WP-Nonce", &*nonce), ("Content-Type", "application/json")];
    let made = browser.send("POST", "/blog/index.php?rest_route=/wp/v2/posts", &headers, json.as_bytes());
    assert_eq!(made.status, 201, "{}", made.text());
    let id = made.text().split("\"id\":").nth(1).unwrap().split(',').next().unwrap().to_owned();
    let mut reader = Browser::new(&wharf);
    let post = reader.get(&format!("/blog/?p={id}"));
    assert!(post.status == 200 && post.text().contains("<strong>clipper</strong>"), "{} {}", post.status, post.text());
    let front = reader.get("/blog/");
    assert!(front.text().contains("Harbour &amp; Sea") && front.text().contains("Cutty Sark"), "{}", front.text());
    // A stranger may not write; a path without a file is WordPress's own.
    let refused = reader.send("POST", "/blog/index.php?rest_route=/wp/v2/posts", &headers[1..], json.as_bytes());
    assert_eq!(refused.status, 401, "{}", refused.text());
    let missing = reader.get("/blog/no/such/page");
    assert!(missing.status == 404 && missing.text().contains("Harbour"), "{} {}", missing.status, missing.text());

    // A picture, which is then a file like any other.
    let picture = fs::read(wharf.path("deploy/blog/wp-admin/images/wordpress-logo.png")).unwrap();
    let headers = [
        ("X-WP-Nonce", &*nonce),
        ("Content-Type", "image/png"),
        ("Content-Disposition", "attachment; filename=ship.png"),
    ];
    let sent = browser.send("POST", "/blog/index.php?rest_route=/wp/v2/media", &headers, &picture);
    assert_eq!(sent.status, 201, "{}", sent.text());
    let text = sent.text().replace("\\/", "/");
    let source = text.split("\"guid\":{\"rendered\":\"").nth(1).unwrap().split('"').next().unwrap();
    let path = &source[source.find("/blog/").unwrap()..];
    let fetched = reader.get(path);
    assert_eq!((fetched.status, fetched.header("content-type")), (200, Some("image/png")));
    assert!(fetched.body == picture, "{path}: {} bytes of {}", fetched.body.len(), picture.len());
    for (path, status) in [
        ("/blog/wp-includes/css/dashicons.min.css", 200),
        ("/blog/wp-config.php", 200),
        ("/blog/wp-content/uploads/x.php", 404),
        ("/blog/app.toml", 404),
    ] {
        let answer = reader.get(path);
        assert_eq!(answer.status, status, "{path}");
        assert!(!answer.text().contains("AUTH_KEY"), "{path}");
    }
}
