<%@ Page Language="C#" %>
<script runat="server">
void Page_Load(object sender, EventArgs e) {
    int visits = Session["visits"] == null ? 1 : (int) Session["visits"] + 1;
    Session["visits"] = visits;
    Visits.Text = "visit " + visits + (IsPostBack ? " postback" : " first");
}

void Greet(object sender, EventArgs e) {
    Greeting.Text = "Hello, " + Server.HtmlEncode(Name.Text);
}
</script>
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Hello from ASP.NET</title></head>
<body>
<form runat="server">
<p><asp:Label id="Visits" runat="server" /></p>
<p><asp:TextBox id="Name" runat="server" /> <asp:Button id="Go" Text="Go" OnClick="Greet" runat="server" /></p>
<p><asp:Label id="Greeting" runat="server" /></p>
</form>
</body>
</html>
