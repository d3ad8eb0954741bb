'use strict';
const { outcome, comparison } = JSON.parse(document.getElementById('data').textContent);
const SVG = 'http://www.w3.org/2000/svg';
// A page with more rows than this is looked at by nobody; what is quiet is left out first.
const ROWS_MAX = 250;
const DECISIONS_MAX = 400;

const by = (id) => document.getElementById(id);
const make = (name, attributes = {}, ...children) => {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};
const draw = (name, attributes) => {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};
const clock = (ms) => {
  const s = Math.floor(ms / 1000), two = (n) => String(n).padStart(2, '0');
  const hours = Math.floor(s / 3600), rest = `${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
  return hours ? `${hours}:${rest}` : rest;
};
const seconds = (ms) => (ms === null || ms === undefined ? '–'
  : ms < 100_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 1000).toLocaleString('en')} s`);
const dollars = (micro) => `$${(micro / 1e6).toFixed(2)}`;
const count = (n, one, many = `${one}s`) => `${n.toLocaleString('en')} ${n === 1 ? one : many}`;

// --- figures -------------------------------------------------------------------------------------------------------

function head() {
  const { scenario, seed, endsMs, findings } = outcome;
  document.title = `Rehearsal: ${scenario}`;
  by('title').textContent = scenario;
  by('subtitle').textContent = `Seed ${seed}; ${clock(endsMs)} of simulated time, `
    + `${count(outcome.work.events, 'event')}, ${count(outcome.decisions.length, 'decision')}.`;
  const verdict = by('verdict');
  verdict.className = findings.length ? 'broken' : 'held';
  verdict.textContent = findings.length ? `${count(findings.length, 'finding')}: see below` : 'Every invariant held';
  if (!findings.length) return;
  by('findings').hidden = false;
  for (const { atMs, node, code, what } of findings) {
    by('findings').querySelector('ul').append(make('li', {}, `${clock(atMs)} ${node} ${code}: ${what}`));
  }
}

function tiles() {
  const { capacity, pods, calls } = outcome;
  const types = Object.entries(capacity.byCapacityType).map(([type, n]) => `${n} ${type}`).join(', ');
  const all = [
    ['Nodes replaced', `${capacity.ready} of ${capacity.claims}`, types],
    ['Time to capacity, median', seconds(capacity.p50Ms), `longest ${seconds(capacity.maxMs)}`],
    ['Pod-seconds unavailable', Math.round(pods.unavailablePodMs / 1000).toLocaleString('en'), 'all workloads'],
    ['Pods killed hard', pods.killed + pods.cutShort, `${count(pods.stopped, 'pod')} stopped in time`],
    ['Work lost', seconds(pods.workLostMs), 'since the last checkpoints'],
    ['Launch calls', calls.spot + calls.onDemand + calls.reserved,
      `${calls.spot} spot, ${calls.onDemand} on-demand, ${calls.throttled} throttled`],
  ];
  for (const [name, value, note] of all) {
    by('tiles').append(make('div', {}, make('dt', {}, name), make('dd', {}, String(value), make('small', {}, note))));
  }
}

function cost() {
  const { spent, allOnDemand, allSpot } = outcome.cost;
  const most = Math.max(spent, allOnDemand, allSpot, 1);
  for (const [name, value, color] of [
    ['This rehearsal', spent, '--ready'], ['All on-demand', allOnDemand, '--demand'], ['All spot, for ever', allSpot, '--spot'],
  ]) {
    const bar = make('i', { style: `width:${(100 * value / most).toFixed(1)}%;background:var(${color})` });
    by('cost').append(make('div', {}, make('span', {}, name), bar, make('b', {}, dollars(value))));
  }
}

function compared() {
  if (!comparison) return;
  by('compared').hidden = false;
  const table = by('compared').querySelector('table');
  table.append(make('tr', {}, make('th', { scope: 'col' }, ''),
    ...comparison.policies.map((name) => make('th', { scope: 'col', class: 'n' }, name))));
  for (const { measure, values, best } of comparison.rows) {
    table.append(make('tr', {}, make('th', { scope: 'row' }, measure),
      ...values.map((value, at) => make('td', { class: at === best ? 'n best' : 'n' }, value))));
  }
  by('compared').append(make('ul', { class: 'muted' }, ...comparison.notes.map((note) => make('li', {}, note))));
}

// --- charts --------------------------------------------------------------------------------------------------------

const WIDTH = 1000;
let span = [0, Math.max(outcome.endsMs, 1)];
const x = (ms) => WIDTH * (Math.min(Math.max(ms, span[0]), span[1]) - span[0]) / (span[1] - span[0]);

function svg(height) {
  return draw('svg', { viewBox: `0 0 ${WIDTH} ${height}`, preserveAspectRatio: 'none', height, 'aria-hidden': 'true' });
}

function axis() {
  const picture = draw('svg', { viewBox: `0 0 ${WIDTH} 18`, height: 18, class: 'axis', 'aria-hidden': 'true' });
  for (let at = 0; at <= 8; at += 1) {
    const ms = span[0] + (span[1] - span[0]) * at / 8;
    const text = draw('text', { x: x(ms), y: 13, 'text-anchor': at === 0 ? 'start' : at === 8 ? 'end' : 'middle' });
    text.textContent = clock(ms);
    picture.append(text);
  }
  return make('div', { class: 'row' }, make('span'), picture);
}

// Pieces from a list of [time, state]: each lasts until the next, the last until the end.
const pieces = (states) => states.map(([at, state], index) => (
  { from: at, to: index + 1 < states.length ? states[index + 1][0] : outcome.endsMs, state }));

const tip = by('tip');
function tipped(row, text) {
  const show = (left, top) => {
    tip.textContent = text();
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.min(left + 12, innerWidth - box.width - 8)}px`;
    tip.style.top = `${Math.min(top + 14, innerHeight - box.height - 8)}px`;
  };
  row.addEventListener('mousemove', (event) => show(event.clientX, event.clientY));
  row.addEventListener('mouseleave', () => { tip.hidden = true; });
  row.addEventListener('focus', () => { const box = row.getBoundingClientRect(); show(box.left + 160, box.bottom - 8); });
  row.addEventListener('blur', () => { tip.hidden = true; });
}

function rowOf(name, picture, story, click) {
  const row = make('div', { class: 'row', role: 'listitem', tabindex: -1, 'aria-label': story },
    make('span', { 'aria-hidden': 'true' }, name), picture);
  tipped(row, () => story);
  if (click) {
    row.addEventListener('click', click);
    row.addEventListener('keydown', (event) => { if (event.key === 'Enter') click(); });
  }
  return row;
}

// One tab stop for each chart; arrows move within it.
function chart(id, rows) {
  const box = by(id);
  const had = box.contains(document.activeElement) ? [...box.querySelectorAll('[role=listitem]')].indexOf(document.activeElement) : -1;
  const list = make('div', { role: 'list' }, ...rows);
  box.replaceChildren(axis(), list);
  if (rows.length) rows[0].tabIndex = 0;
  if (had >= 0) rows[Math.min(had, rows.length - 1)]?.focus();
  list.addEventListener('keydown', (event) => {
    const at = rows.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (to === undefined || !rows[to]) return;
    event.preventDefault();
    rows[at].tabIndex = -1;
    rows[to].tabIndex = 0;
    rows[to].focus();
  });
}

function key(id, of) {
  by(id).append(...of.map(([name, color]) => make('li', {}, make('i', { style: `background:var(${color})` }), name)));
}

// What the provisioners decided about the node that stands in for this instance, shortly.
const LADDER_MAX = 10;
function ladder(instance) {
  const about = outcome.decisions.filter((one) => one.by.startsWith('provisioner') && one.about.startsWith(`${instance}-`));
  const lines = about.slice(0, LADDER_MAX).map((one) => `${clock(one.atMs)} ${one.because}`);
  if (about.length > LADDER_MAX) lines.push(`and ${about.length - LADDER_MAX} more`);
  return lines.length ? `\nIn its place: ${lines.join('; \n')}` : '';
}

const NODE_COLORS = {
  Joining: '--joining', Ready: '--ready', Announced: '--announced', Noticed: '--announced', Confirmed: '--announced',
  Cordoned: '--cordoned', Draining: '--draining', Drained: '--drained', Cancelled: '--ready', Refuted: '--ready', Gone: '--gone',
};

function nodes() {
  const all = outcome.timelines.nodes;
  const lively = all.filter((node) => node.standsIn || node.states.some(([, state]) => state !== 'Ready' && state !== 'Joining'));
  const quiet = all.filter((node) => !lively.includes(node));
  const shown = [...lively, ...quiet].slice(0, ROWS_MAX);
  by('nodes-note').textContent = shown.length < all.length ? `${shown.length} of ${all.length}: those that something happened to` : '';
  const rows = shown.map((node) => {
    const picture = svg(14);
    for (const { from, to, state } of pieces(node.states)) {
      if (to <= span[0] || from >= span[1]) continue;
      picture.append(draw('rect', { x: x(from), y: state === 'Gone' ? 5 : 1, width: Math.max(x(to) - x(from), 1),
        height: state === 'Gone' ? 4 : 12, style: `fill:var(${NODE_COLORS[state]})` }));
    }
    const told = node.states.map(([at, state]) => `${clock(at)} ${state}`).join(', ');
    const kind = `${node.capacityType} ${node.instanceType} in ${node.zone}${node.standsIn ? ', stands in for another' : ''}`;
    return rowOf(node.name, picture, `${node.name}, ${kind}: ${told}${ladder(node.instance)}`, () => look(node.instance));
  });
  chart('nodes', rows);
}

// How many pods of a workload run, as steps.
function available(workload) {
  const changes = [];
  for (const pod of outcome.timelines.pods) {
    if (pod.workload !== workload.name) continue;
    let running = false;
    for (const [at, , state] of pod.states) {
      if ((state === 'Running') !== running) {
        running = state === 'Running';
        changes.push([at, running ? 1 : -1]);
      }
    }
  }
  changes.sort((a, b) => a[0] - b[0]);
  const steps = [[0, 0]];
  for (const [at, by] of changes) {
    const last = steps[steps.length - 1];
    if (last[0] === at) last[1] += by; else steps.push([at, last[1] + by]);
  }
  return steps;
}

const stepsOf = new Map();
function workloads() {
  const rows = outcome.workloads.map((workload) => {
    if (!stepsOf.has(workload.name)) stepsOf.set(workload.name, available(workload));
    const height = 34, most = Math.max(workload.replicas, 1);
    const y = (n) => height - 2 - (height - 6) * Math.min(n / most, 1);
    const picture = svg(height);
    picture.append(draw('rect', { x: 0, y: y(most), width: WIDTH, height: height - 2 - y(most), style: 'fill:var(--missing);opacity:.28' }));
    let path = `M ${x(span[0])} ${height - 2}`;
    for (const { from, to, state } of pieces(stepsOf.get(workload.name))) {
      if (to < span[0] || from > span[1]) continue;
      path += ` L ${x(from)} ${y(state)} L ${x(to)} ${y(state)}`;
    }
    picture.append(draw('path', { d: `${path} L ${x(span[1])} ${height - 2} Z`, style: 'fill:var(--area)' }));
    const story = `${workload.kind} ${workload.name}: ${workload.replicas} replicas, ${workload.availableAtEnd} available at the end; `
      + `${seconds(workload.unavailablePodMs)} of pods unavailable, longest gap ${seconds(workload.longestGapMs)}; `
      + `${workload.stopped} stopped in time, ${workload.cutShort} cut short, ${workload.killed} killed`;
    return rowOf(`${workload.name} × ${workload.replicas}`, picture, story, () => look(workload.name.split('/').pop()));
  });
  chart('workloads', rows);
}

function pools() {
  const short = (pool) => [...pool.truth, ...pool.believed].some(([, state]) => state === 'Short');
  const spot = outcome.timelines.pools.filter((pool) => pool.capacityType === 'spot');
  const shown = spot.filter(short).slice(0, ROWS_MAX);
  by('pools-note').textContent = spot.length ? `${spot.filter(short).length} of ${spot.length} were short at some time` : '';
  const rows = shown.map((pool) => {
    const picture = svg(14);
    picture.append(draw('rect', { x: 0, y: 0, width: WIDTH, height: 14, style: 'fill:var(--quiet);opacity:.5' }));
    for (const [states, top, color] of [[pool.truth, 1, '--truth'], [pool.believed, 8, '--believed']]) {
      for (const { from, to, state } of pieces(states)) {
        if (state !== 'Short' || to <= span[0] || from >= span[1]) continue;
        picture.append(draw('rect', { x: x(from), y: top, width: Math.max(x(to) - x(from), 1), height: 5, style: `fill:var(${color})` }));
      }
    }
    const spell = (states) => pieces(states).filter((piece) => piece.state === 'Short')
      .map(({ from, to }) => `${clock(from)} to ${clock(to)}`).join(', ') || 'never';
    const name = `${pool.instanceType} ${pool.zone}`;
    return rowOf(name, picture, `${name}: short ${spell(pool.truth)}; believed short ${spell(pool.believed)}`, () => look(pool.instanceType));
  });
  chart('pools', rows);
}

function charts() { workloads(); nodes(); pools(); }

function zoom() {
  const [from, to] = [by('from'), by('to')];
  const apply = () => {
    const [a, b] = [Number(from.value), Number(to.value)].sort((p, q) => p - q);
    span = [outcome.endsMs * a / 1000, Math.max(outcome.endsMs * b / 1000, outcome.endsMs * a / 1000 + 1)];
    by('from-text').textContent = clock(span[0]);
    by('to-text').textContent = clock(span[1]);
    charts();
  };
  from.addEventListener('input', apply);
  to.addEventListener('input', apply);
  by('all').addEventListener('click', () => { from.value = 0; to.value = 1000; apply(); });
  // Most of a rehearsal is quiet: it opens on what happened.
  const busy = outcome.timelines.nodes.flatMap((node) => node.states.map(([at]) => at)).filter((at) => at > 0).sort((a, b) => a - b);
  if (busy.length) {
    const end = busy[Math.floor((busy.length - 1) * 0.98)];
    to.value = Math.min(1000, Math.ceil(1000 * (end + 60_000) / outcome.endsMs));
  }
  apply();
}

// --- tables --------------------------------------------------------------------------------------------------------

function claims() {
  const table = by('claims');
  table.append(make('tr', {}, ...['Claim', 'Wanted at', 'Asked for after', 'Ready after', 'Capacity', 'Attempts']
    .map((name, at) => make('th', { scope: 'col', class: at && at !== 4 ? 'n' : '' }, name))));
  for (const claim of outcome.claims.slice(0, ROWS_MAX)) {
    const asked = Object.entries(claim.askedMs).map(([type, at]) => `${type} ${seconds(at - claim.wantedMs)}`).join(', ');
    table.append(make('tr', {}, make('th', { scope: 'row' }, claim.name), make('td', { class: 'n' }, clock(claim.wantedMs)),
      make('td', { class: 'n' }, asked || '–'), make('td', { class: 'n' }, claim.readyMs === null ? 'never' : seconds(claim.readyMs - claim.wantedMs)),
      make('td', {}, claim.capacityType ?? '–'), make('td', { class: 'n' }, String(claim.attempts))));
  }
}

function decisions() {
  const needle = by('find').value.trim().toLowerCase(), reason = by('reason').value;
  const found = outcome.decisions.filter((one) => (!reason || one.reason === reason)
    && (!needle || `${one.about} ${one.by} ${one.because}`.toLowerCase().includes(needle)));
  by('found').textContent = found.length > DECISIONS_MAX ? `the first ${DECISIONS_MAX} of ${found.length}` : count(found.length, 'decision');
  const rows = found.slice(0, DECISIONS_MAX).map((one) => make('tr', {}, make('td', { class: 'n' }, clock(one.atMs)),
    make('td', {}, one.by), make('td', {}, one.about), make('td', {}, one.reason), make('td', {}, one.because)));
  by('decisions').replaceChildren(make('tr', {}, ...['When', 'Who', 'About', 'Reason', 'Because']
    .map((name, at) => make('th', { scope: 'col', class: at ? '' : 'n' }, name))), ...rows);
}

// Shows the decisions about something in a chart.
function look(what) {
  by('find').value = what;
  by('reason').value = '';
  decisions();
  by('find').focus();
  by('find').scrollIntoView({ block: 'center' });
}

function why() {
  const reasons = [...new Set(outcome.decisions.map((one) => one.reason))].sort();
  by('reason').append(...reasons.map((reason) => make('option', { value: reason }, reason)));
  by('find').addEventListener('input', decisions);
  by('reason').addEventListener('change', decisions);
  for (const form of document.querySelectorAll('form')) form.addEventListener('submit', (event) => event.preventDefault());
  decisions();
}

key('nodes-key', [['joining', '--joining'], ['Ready', '--ready'], ['announced', '--announced'], ['cordoned', '--cordoned'],
  ['draining', '--draining'], ['drained', '--drained'], ['gone', '--gone']]);
key('pools-key', [['short in truth', '--truth'], ['believed short', '--believed']]);
head(); tiles(); cost(); compared(); zoom(); claims(); why();
