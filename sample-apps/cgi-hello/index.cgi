#!/bin/sh
# Greets whoever is named in a form. A CGI program reads its request from the environment and from standard input, and
# writes a header, an empty line and the content.

# The value of name=... in the query or in the form, letters, digits, spaces, dots and dashes alone.
if [ "$REQUEST_METHOD" = POST ]; then
    form=$(head -c 1000)
else
    form=$QUERY_STRING
fi
name=$(printf '%s' "$form" | tr '&' '\n' | sed -n 's/^name=//p' | head -n 1 | tr '+' ' ' | tr -cd 'A-Za-z0-9 .-')

cat <<END
Content-Type: text/html; charset=utf-8

<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Hello by CGI</title><link rel="stylesheet" href="style.css"></head>
<body>
<h1>$GREETING, ${name:-world}!</h1>
<form method="post"><label>Your name <input name="name" value="$name"></label> <button>Greet</button></form>
<p>Answered by $SCRIPT_NAME, process $$.</p>
</body>
</html>
END
