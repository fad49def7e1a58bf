<?php
session_start();
$_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
$name = htmlspecialchars($_POST['name'] ?? $_GET['name'] ?? 'world');
?>
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Hello from PHP</title>
<link rel="stylesheet" href="<?= dirname($_SERVER['SCRIPT_NAME']) ?>/style.css"></head>
<body>
<h1>Hello, <?= $name ?>!</h1>
<p>You asked for <code><?= htmlspecialchars($_SERVER['REQUEST_URI']) ?></code>; this is visit <?= $_SESSION['visits'] ?>.</p>
<form method="post"><input name="name" aria-label="Your name"> <button>Greet</button></form>
</body>
</html>
