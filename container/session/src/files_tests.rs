//! What a file of a session must survive, and what must not be believed (attack rows E2 and E3).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wharf_session_state::Value;

use super::*;

fn stored() -> Stored {
    let value = Value { type_name: "u32".into(), json: "7".into() };
    let now: SystemTime = UNIX_EPOCH + Duration::from_millis(1_700_000_000_000);
    Stored {
        id: "ab".repeat(20),
        version: "2".into(),
        created: now,
        last_accessed: now,
        accessed: now,
        max_inactive: Some(Duration::from_secs(60)),
        values: vec![("n".into(), value)],
        notes: vec![("user".into(), "ann".into())],
    }
}

#[test]
fn what_was_written_is_read_and_only_its_owner_may() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::new(dir.path(), "default/shop", 1000);
    files.write(&stored()).unwrap();
    assert_eq!(files.read_all(), [stored()]);
    let path = files.path(&stored().id);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&files.folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(!path.display().to_string().contains(&stored().id), "the id is a secret");
    assert!(Files::new(dir.path(), "default/other", 1000).read_all().is_empty());
}

#[test]
fn what_can_not_be_believed_is_dropped_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::new(dir.path(), "default/shop", 1000);
    files.write(&stored()).unwrap();
    let good = fs::read(files.path(&stored().id)).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let other = "cd".repeat(20);
    let private = |path: &Path, bytes: &[u8]| {
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .unwrap()
            .write_all(bytes)
            .unwrap();
    };
    let named = files.path(&other);
    for (what, bytes) in [
        ("cut off", good[..good.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("garbage", vec![0xff; 100]),
        ("too large", vec![b' '; 1 << 20]),
        (
            "another form",
            text.replace("\"wharf_session\":1", "\"wharf_session\":0").replace(&stored().id, &other).into_bytes(),
        ),
        ("of another context", text.replace("default/shop", "default/evil").replace(&stored().id, &other).into_bytes()),
        ("a name that does not fit", good.clone()),
        ("a path as its id", text.replace(&stored().id, "../../x").into_bytes()),
    ] {
        private(&named, &bytes);
        assert_eq!(files.read_all(), [stored()], "{what}");
        assert!(!named.exists(), "{what}");
    }
    let planted = text.replace(&stored().id, &other);
    private(&named, planted.as_bytes());
    fs::set_permissions(&named, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(files.read_all(), [stored()], "others may write it");
    private(&dir.path().join("outside"), planted.as_bytes());
    std::os::unix::fs::symlink(dir.path().join("outside"), &named).unwrap();
    assert_eq!(files.read_all(), [stored()], "a link");
    assert!(dir.path().join("outside").exists());
    fs::create_dir(&named).unwrap();
    assert_eq!(files.read_all(), [stored()], "a folder");
    private(&named, planted.as_bytes());
    assert_eq!(files.read_all().len(), 2, "the same bytes in their own place are fine, so the rows above could fail");
}
