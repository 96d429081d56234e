#!/usr/bin/env python3
"""The pages of `slidecast serve` in a browser: pages.py URL LINK-FILE OUT, run by `slidecast-lab web`.

Needs playwright and axe-playwright-python, and Chromium of the system. Screenshots go to OUT.
"""

import os
import sys
import time
from pathlib import Path

import axe_playwright_python
from playwright.sync_api import expect, sync_playwright

URL, LINK, OUT = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PASSWORD = "a long password"
LONG = 60_000

passed = 0
failed = []


def test(name):
    """Runs a step now; those after a failed one still run."""

    def run(step):
        global passed
        try:
            step()
            passed += 1
            print(f"ok: {name}", flush=True)
        except Exception as error:  # noqa: BLE001, whatever it is, it is a failure
            failed.append(name)
            print(f"FAILED: {name}: {error}", flush=True)

    return run


def look(page, name):
    """Keeps a screenshot, and asks axe about the page: light, dark and narrow."""
    for scheme, width, height in (("light", 1280, 860), ("dark", 1280, 860), ("light", 320, 640)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": height})
        page.screenshot(path=OUT / f"{name}-{scheme}-{width}.png", full_page=True)
        # The policy of the pages lets no script in but the server's own: axe comes by the debugger, as a person's extension would.
        page.evaluate(AXE)
        found = page.evaluate("tags => axe.run({ runOnly: tags })", TAGS)["violations"]
        faults = [f"{fault['id']}: {fault['nodes'][0]['html'][:160]}" for fault in found]
        assert not faults, f"axe, {scheme}, {width} px: {faults}"
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{wide} px wide at {width} px"
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1280, "height": 860})


def wish(name):
    (OUT / name).touch()
    until = time.monotonic() + 60
    while (OUT / name).exists():
        assert time.monotonic() < until, f"the lab did not {name}"
        time.sleep(0.1)


def sign_in(page, name, password):
    page.goto(f"{URL}/sign-in")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def stop(page):
    """Stops the deployment that is shown."""
    page.get_by_text("Stop this deployment…").click()
    page.get_by_label("Type the word stop").fill("stop")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#log")).to_contain_text("stop ordered by anna")


def main(browser):
    context = browser.new_context()
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if "Content Security Policy" in line.text else None)

    @test("the first link makes an administrator, by keyboard alone")
    def _():
        page.goto(LINK.read_text().strip())
        look(page, "welcome")
        page.get_by_label("Name").focus()
        page.keyboard.type("anna")
        for _ in range(2):
            page.keyboard.press("Tab")
            page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Machines", exact=True)).to_be_visible()

    @test("four machines appear by themselves, are filtered and accepted")
    def _():
        rows = page.locator("#machines > tr:visible")
        expect(rows).to_have_count(4, timeout=LONG)
        look(page, "machines-new")
        page.locator("h1").click()
        page.keyboard.press("/")
        page.keyboard.type("no such machine")
        expect(rows).to_have_count(0)
        page.get_by_label("Filter").fill("")
        expect(rows).to_have_count(4)
        page.get_by_role("button", name="Accept all new").click()
        expect(page.locator("#machines .good")).to_have_count(4)
        look(page, "machines")

    @test("images are a tree")
    def _():
        page.get_by_role("link", name="Images").click()
        expect(page.locator(".tree ul").get_by_text("tuesday.slide")).to_be_visible()
        look(page, "images")

    @test("a room is made, filled, named anew and fed by a rule")
    def _():
        page.get_by_role("link", name="Groups").click()
        look(page, "groups-none")
        form = page.locator("form[action='/groups']")
        form.get_by_label("Name").fill("Room 7")
        form.get_by_role("button", name="Make the group").click()
        expect(page.get_by_role("heading", name="Room 7")).to_be_visible()
        page.get_by_text("Add machines…").click()
        page.locator(".choices input").first.check()
        page.locator(".choices input").nth(1).check()
        page.get_by_role("button", name="Add selected").click()
        expect(page.locator("#count")).to_contain_text("2 machines")
        page.get_by_text("Name and protection…").click()
        page.get_by_label("Name").fill("Room 8")
        page.get_by_label("Protected").check()
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("heading", name="Room 8")).to_be_visible()
        expect(page.locator("#count")).to_contain_text("protected")
        look(page, "group")
        page.goto(f"{URL}/groups")
        page.get_by_label("Subnet").fill("192.0.2.0/24")
        page.get_by_label("They join").select_option("Room 8")
        page.get_by_role("button", name="Accept machines from there").click()
        expect(page.get_by_role("row", name="192.0.2.0/24")).to_have_count(2)
        look(page, "groups")
        page.get_by_label("Subnet").fill("no subnet")
        page.get_by_role("button", name="Accept machines from there").click()
        expect(page.get_by_role("alert")).to_contain_text("subnet")
        page.goto(f"{URL}/groups")
        page.get_by_role("button", name="Remove the rule for 192.0.2.0/24").click()
        expect(page.get_by_role("row", name="192.0.2.0/24")).to_have_count(0)

    @test("a deployment of a protected room waits for a second person, and is called off")
    def _():
        page.get_by_role("link", name="Room 8").click()
        page.get_by_role("link", name="Deploy to this group…").click()
        expect(page.locator(".choices input:checked")).to_have_count(2)
        page.locator("select[name=image]").select_option("monday.slide")
        page.get_by_role("button", name="Show what is lost").click()
        page.get_by_label("How many machines").fill("2")
        page.get_by_role("button", name="Overwrite and start").click()
        expect(page.locator("#state")).to_contain_text("needs a second person")
        expect(page.get_by_role("button", name="Agree and start")).to_have_count(0)
        look(page, "deployment-unconfirmed")
        stop(page)
        page.goto(f"{URL}/groups")
        page.get_by_role("link", name="Room 8").click()
        page.get_by_text("Name and protection…").click()
        page.get_by_label("Protected").uncheck()
        page.get_by_role("button", name="Save").click()
        expect(page.locator("#count")).not_to_contain_text("protected")

    @test("a deployment is started by keyboard, after what is lost was shown and the count typed")
    def _():
        page.goto(f"{URL}/machines")
        box = page.get_by_label("Select all")
        box.focus()
        page.keyboard.press("Space")
        page.get_by_role("button", name="Deploy…").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="New deployment")).to_be_visible()
        look(page, "deployment-new")
        page.locator("select[name=image]").focus()
        page.locator("select[name=image]").select_option("monday.slide")
        page.get_by_role("button", name="Show what is lost").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_text("Everything on it is lost.")).to_be_visible()
        look(page, "deployment-confirm")
        page.get_by_label("How many machines").focus()
        page.keyboard.type("3")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("Nothing was started")
        page.get_by_label("How many machines").focus()
        page.keyboard.type("4")
        page.keyboard.press("Enter")
        expect(page.locator("#state")).to_be_visible()

    @test("the chain is seen filling, without a reload, also over a restart of the server")
    def _():
        expect(page.locator(".chain .node")).to_have_count(4, timeout=LONG)
        page.evaluate("window.same = true")

        def filled(part):
            heights = "Math.max(0, ...[...document.querySelectorAll('rect.durable')].map(r => +r.getAttribute('height')))"
            until = time.monotonic() + 60
            while page.evaluate(heights) <= part:
                assert time.monotonic() < until, f"no box is filled by {part} %"
                time.sleep(0.1)

        filled(10)
        look(page, "deployment-live")
        wish("restart")
        filled(40)
        assert page.evaluate("window.same"), "the page was loaded again"

    @test("a machine that dies is told of in words with who must act")
    def _():
        wish("kill")
        expect(page.locator("#failures")).to_contain_text("Somebody at the machine", timeout=LONG)
        expect(page.locator("#state")).to_contain_text("3 of 4 done", timeout=LONG)
        assert page.evaluate("window.same"), "the page was loaded again"
        page.reload()
        look(page, "deployment-over")

    @test("a machine tells its history")
    def _():
        page.goto(f"{URL}/machines")
        page.locator("#machines th a").first.click()
        expect(page.locator("#log")).to_contain_text("ended its part")
        look(page, "machine")

    @test("deployments, users and settings are shown")
    def _():
        for place in ("deployments", "users", "settings"):
            page.goto(f"{URL}/{place}")
            look(page, place)

    @test("a second user is refused by role, and works without script")
    def _():
        page.goto(f"{URL}/users")
        page.locator("form[action='/users'] input[name=name]").fill("ben")
        page.locator("form[action='/users'] select[name=role]").select_option("viewer")
        page.get_by_role("button", name="Make a link").click()
        link = page.locator("#secret").inner_text()
        other = browser.new_context(java_script_enabled=False)
        plain = other.new_page()
        plain.goto(link)
        for label in ("Password, at least", "The same again"):
            plain.get_by_label(label).fill(PASSWORD)
        plain.get_by_role("button", name="Sign in").click()
        expect(plain.locator("#machines > tr")).to_have_count(4)
        expect(plain.get_by_role("button", name="Deploy…")).to_have_count(0)
        plain.goto(f"{URL}/users")
        expect(plain.get_by_role("alert")).to_contain_text("needs the role admin")
        plain.goto(f"{URL}/deployments")
        plain.locator("#over a").first.click()
        expect(plain.locator("#state")).to_contain_text("3 of 4 done")
        other.close()

    @test("an administrator starts and stops a deployment without script")
    def _():
        other = browser.new_context(java_script_enabled=False)
        plain = other.new_page()
        sign_in(plain, "anna", PASSWORD)
        plain.get_by_label("Filter").fill("ready")
        plain.get_by_role("button", name="Filter").click()
        plain.locator("#machines input").first.check()
        plain.get_by_role("button", name="Deploy…").click()
        plain.locator("select[name=image]").select_option("tuesday.slide")
        plain.get_by_text("More").click()
        plain.get_by_label("Write everything").check()
        plain.get_by_role("button", name="Show what is lost").click()
        plain.get_by_label("How many machines").fill("1")
        plain.get_by_role("button", name="Overwrite and start").click()
        expect(plain.locator("#state")).to_be_visible()
        plain.get_by_text("Stop this deployment…").click()
        plain.get_by_label("Type the word stop").fill("stop")
        plain.get_by_role("button", name="Stop", exact=True).click()
        expect(plain.locator("#log")).to_contain_text("stop ordered by anna")
        other.close()

    @test("a later wave is queued and called off with the one before it, and another deployment waits for its time")
    def _():
        page.goto(f"{URL}/machines?filter=ready")
        ready = page.locator("#machines > tr:visible")
        expect(ready).to_have_count(3, timeout=LONG)
        ids = [box.get_attribute("value") for box in page.locator("#machines > tr:visible input").all()]

        def deploy(machines, choose):
            page.goto(f"{URL}/deployments/new?" + "&".join(f"machine={machine}" for machine in machines))
            page.locator("select[name=image]").select_option("tuesday.slide")
            page.get_by_text("More").click()
            page.get_by_label("Write everything").check()
            choose()
            page.get_by_role("button", name="Show what is lost").click()
            look(page, f"deployment-confirm-{len(machines)}")
            page.get_by_label("How many machines").fill(str(len(machines)))
            page.get_by_role("button", name="Overwrite and start").click()
            return page.url

        def later():
            page.get_by_label("at a time:").check()
            page.get_by_label("Time", exact=True).fill("2199-03-31T03:00")
            page.get_by_label("Time zone").fill("Europe/Berlin")

        first = deploy(ids[:2], lambda: page.locator("input[name=waves]").fill("1,rest"))
        expect(page.locator("#state")).to_contain_text("running", timeout=LONG)
        last = deploy(ids[2:], later)
        expect(page.locator("#state")).to_contain_text("scheduled")
        expect(page.locator("#chains")).to_contain_text("begins at 2199-03-31 03:00:00 Europe/Berlin")
        look(page, "deployment-scheduled")
        page.goto(f"{URL}/deployments")
        for word in ("running", "queued", "scheduled"):
            expect(page.locator("#active")).to_contain_text(word)
        look(page, "deployments-queue")
        page.locator("#active tr", has_text="wave 2 of 2").get_by_role("link").click()
        expect(page.locator("#state")).to_contain_text("queued")
        expect(page.locator("#chains")).to_contain_text("waits for the end of wave 1")
        look(page, "deployment-queued")
        page.evaluate("window.same = true")
        other = context.new_page()
        other.goto(first)
        stop(other)
        other.close()
        expect(page.locator("#chains")).to_contain_text("a wave before it was stopped", timeout=LONG)
        assert page.evaluate("window.same"), "the page was loaded again"
        page.goto(last)
        stop(page)

    @test("signing out ends the session, and wrong passwords shut the door")
    def _():
        page.goto(f"{URL}/machines")
        page.get_by_role("button", name="Sign out").click()
        page.goto(f"{URL}/machines")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        look(page, "sign-in")
        for _ in range(6):
            sign_in(page, "anna", "wrong password")
        expect(page.get_by_role("alert")).to_contain_text("Too many wrong passwords")

    @test("no page had an error or broke its policy")
    def _():
        assert not errors, errors


with sync_playwright() as play:
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    chrome = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
    main(chrome)
    chrome.close()

print(f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {len(failed)} failed; 0 ignored")
sys.exit(1 if failed else 0)
