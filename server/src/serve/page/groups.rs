//! All groups, and the rules that accept machines by themselves.

use super::{Answer, Shared, done, page as whole, visitor};
use crate::serve::fields::Fields;
use crate::serve::groups::{group_name, subnet};
use crate::serve::problem::Problem;
use crate::serve::role::Role;
use crate::serve::store::{Group, Rule};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use maud::{Markup, html};

pub(super) async fn page(State(api): Shared, uri: Uri, headers: HeaderMap) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Viewer).await?;
    let (groups, rules) = api.database.call(|store| Ok((store.groups()?, store.rules()?))).await?;
    let admin = who.role >= Role::Admin;
    let body = html! {
        div.head { h1 { "Groups" } p.count { "Rooms, racks, classes: a machine may be in several" } }
        (table(&groups, &rules))
        @if admin {
            h2 { "New group" }
            form.stack method="post" action="/groups" {
                label { "Name" input name="name" required maxlength="64" autocomplete="off"; }
                label.check {
                    input type="checkbox" name="protected" value="yes";
                    span { "Protected: a deployment of its machines needs a second person" }
                }
                button type="submit" { "Make the group" }
            }
        }
        h2 { "Machines that are accepted by themselves" }
        p.hint { "A new machine that calls from one of these subnets is accepted and joins the group. A machine chooses its address itself: use this for networks that you trust." }
        (rule_table(&rules, admin))
        @if admin { (rule_form(&groups)) }
    };
    Ok(whole(&who, "/groups", "Groups", false, body))
}

fn table(groups: &[Group], rules: &[Rule]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Groups" {
            table.rows {
                thead { tr { th scope="col" { "Name" } th scope="col" { "Machines" } th scope="col" { "Protected" } th scope="col" { "Operators limited to it" } th scope="col" { "Joined by itself from" } } }
                tbody {
                    @for group in groups {
                        @let subnets: Vec<&str> = rules.iter()
                            .filter(|rule| rule.group.as_ref().is_some_and(|(id, _)| *id == group.id))
                            .map(|rule| rule.subnet.as_str()).collect();
                        tr {
                            th scope="row" { a href=(format!("/groups/{}", group.id)) { (group.name) } }
                            td.number { (group.machines.len()) }
                            td { @if group.protected { "yes" } @else { span.faint { "no" } } }
                            td { @if group.operators.is_empty() { span.faint { "–" } } @else { (group.operators.join(", ")) } }
                            td.mono { (subnets.join(", ")) }
                        }
                    }
                    @if groups.is_empty() { tr { td.faint colspan="5" { "None yet." } } }
                }
            }
        }
    }
}

fn rule_table(rules: &[Rule], admin: bool) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Rules" {
            table.rows {
                thead { tr { th scope="col" { "Subnet" } th scope="col" { "Group" } th scope="col" { "Remove" } } }
                tbody {
                    @for rule in rules {
                        tr {
                            th.mono scope="row" { (rule.subnet) }
                            td { @if let Some((id, name)) = &rule.group { a href=(format!("/groups/{id}")) { (name) } } @else { span.faint { "none" } } }
                            td {
                                @if admin {
                                    form.inline method="post" action="/groups/rules/remove" {
                                        input type="hidden" name="rule" value=(rule.id);
                                        button.quiet.danger type="submit" aria-label=(format!("Remove the rule for {}", rule.subnet)) { "Remove" }
                                    }
                                }
                            }
                        }
                    }
                    @if rules.is_empty() { tr { td.faint colspan="3" { "None: every machine is accepted by an administrator." } } }
                }
            }
        }
    }
}

fn rule_form(groups: &[Group]) -> Markup {
    html! {
        form.stack method="post" action="/groups/rules" {
            label { "Subnet" input name="subnet" required placeholder="10.1.7.0/24" autocomplete="off"; }
            label { "They join"
                select name="group" {
                    option value="" { "no group" }
                    @for group in groups { option value=(group.id) { (group.name) } }
                }
            }
            button type="submit" { "Accept machines from there" }
        }
    }
}

pub(super) async fn new_group(State(api): Shared, uri: Uri, headers: HeaderMap, body: Bytes) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Admin).await?;
    let fields = Fields::read(&body);
    let (name, protected) = (group_name(fields.get("name"))?, fields.get("protected") == "yes");
    let id = api.database.call(move |store| store.add_group(&name, protected, &who.name)).await?;
    Ok(done(&format!("/groups/{id}")))
}

pub(super) async fn new_rule(State(api): Shared, uri: Uri, headers: HeaderMap, body: Bytes) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Admin).await?;
    let fields = Fields::read(&body);
    let subnet = subnet(fields.get("subnet"))?;
    let group = match fields.get("group") {
        "" => None,
        id => Some(id.parse().map_err(|_| Problem::bad("group: expected the number of a group"))?),
    };
    api.database.call(move |store| store.add_rule(subnet, group, &who.name)).await?;
    Ok(done("/groups"))
}

pub(super) async fn remove_rule(State(api): Shared, uri: Uri, headers: HeaderMap, body: Bytes) -> Answer {
    let who = visitor(&api, &headers, &uri, Role::Admin).await?;
    let rule = Fields::read(&body).word("rule")?;
    api.database.call(move |store| store.remove_rule(rule, &who.name)).await?;
    Ok(done("/groups"))
}
