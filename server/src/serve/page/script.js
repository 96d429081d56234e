// Keeps a page up to date: when the server tells of an event, the page is asked for again, and parts of it that have changed are put in
// place of the old ones. Nothing here is needed to use a page: without it, reload.
'use strict';

// Rows and events are known by their ids: those that stay keep their focus and their marks.
function merge(now, next) {
  if (now.isEqualNode(next)) return;
  const keyed = next.children.length > 0 && [...next.children].every((child) => child.id);
  if (!keyed) return replace(now, next);
  const wanted = new Set([...next.children].map((child) => child.id));
  for (const child of [...now.children]) if (!wanted.has(child.id)) child.remove();
  [...next.children].forEach((child, place) => {
    const old = document.getElementById(child.id);
    const here = now.children[place] || null;
    if (!old) now.insertBefore(document.importNode(child, true), here);
    else {
      if (old !== here) now.insertBefore(old, here);
      if (!old.isEqualNode(child)) replace(old, child);
    }
  });
}

function replace(old, next) {
  const fresh = document.importNode(next, true);
  const checked = old.querySelectorAll('input[type=checkbox]');
  fresh.querySelectorAll('input[type=checkbox]').forEach((box, at) => {
    if (checked[at]) box.checked = checked[at].checked;
  });
  const focused = old.contains(document.activeElement) ? [...old.querySelectorAll('a,button,input')].indexOf(document.activeElement) : -1;
  old.replaceWith(fresh);
  if (focused >= 0) fresh.querySelectorAll('a,button,input')[focused]?.focus();
}

let asking = false;
let again = false;
let last = 0;

// At most one request at a time and one a second, however many events there are.
async function refresh() {
  if (asking) { again = true; return; }
  asking = true;
  const wait = last + 1000 - Date.now();
  if (wait > 0) await new Promise((go) => setTimeout(go, wait));
  last = Date.now();
  try {
    const answer = await fetch(location.href, { headers: { accept: 'text/html' } });
    if (answer.redirected && new URL(answer.url).pathname === '/sign-in') location.reload();
    else if (answer.ok) {
      const next = new DOMParser().parseFromString(await answer.text(), 'text/html');
      for (const part of document.querySelectorAll('[data-live]')) {
        const fresh = next.getElementById(part.id);
        if (fresh) merge(part, fresh);
      }
      hide();
      // What was running is over: the rest of the page is another one now.
      if (!next.querySelector('[data-events]')) stream?.close();
    }
  } catch { /* The stream says when the server is back. */ }
  asking = false;
  if (again) { again = false; refresh(); }
}

let stream = null;
const main = document.querySelector('[data-events]');
if (main && window.EventSource) {
  const pulse = document.querySelector('[data-pulse]');
  stream = new EventSource(main.dataset.events);
  let opened = false;
  stream.onopen = () => {
    pulse.hidden = false;
    pulse.textContent = 'live';
    pulse.classList.remove('lost');
    // What happened while the connection was gone.
    if (opened) refresh();
    opened = true;
  };
  stream.onerror = () => {
    pulse.hidden = false;
    pulse.textContent = 'connecting…';
    pulse.classList.add('lost');
    // The browser gives up for good when it is refused: the session may have ended.
    if (stream.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
  };
  for (const kind of ['message', 'progress', 'machines']) stream.addEventListener(kind, refresh);
  addEventListener('pagehide', () => stream.close());
}

// The filter hides rows at once; the server filters on Enter.
const filter = document.querySelector('[data-filter]');
function hide() {
  if (!filter) return;
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of document.querySelectorAll('#machines > tr')) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
  for (const kept of document.querySelectorAll('input[type=hidden][name=filter]')) kept.value = filter.value;
}
filter?.addEventListener('input', hide);
addEventListener('keydown', (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName || '');
  if (event.key === '/' && filter && !typing) { event.preventDefault(); filter.focus(); filter.select(); }
});

// One box for all that are shown.
for (const all of document.querySelectorAll('[data-all]')) {
  all.addEventListener('change', () => {
    const form = all.closest('form');
    for (const box of form.querySelectorAll('input[name=machine]')) {
      if (!box.closest('tr')?.hidden) box.checked = all.checked;
    }
  });
}
