class ChatRoom {
  constructor(roomId, token) {
    this.roomId = roomId;
    this.members = [];

    this.ws = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/presence/ws?token=${token}`);
    this.ws.onmessage = (e) => this.handleMessage(JSON.parse(e.data));
  }

  join(userInfo) {
    this.ws.send(JSON.stringify({
      type: 'join',
      channel: `presence-chat-${this.roomId}`,
      userInfo
    }));
  }

  handleMessage(msg) {
    switch (msg.type) {
      case 'channel:joined':
        this.members = msg.members;
        this.onMembersChanged(this.members);
        break;

      case 'presence:member_joined':
        this.members.push(msg.member);
        this.onMembersChanged(this.members);
        this.onMemberJoined(msg.member);
        break;

      case 'presence:member_left':
        this.members = this.members.filter(m => m.id !== msg.member.id);
        this.onMembersChanged(this.members);
        this.onMemberLeft(msg.member);
        break;

      case 'channel:message':
        this.onMessage(msg.data, msg.from);
        break;
    }
  }

  send(text) {
    this.ws.send(JSON.stringify({
      type: 'channel:message',
      channel: `presence-chat-${this.roomId}`,
      event: 'message',
      data: { text }
    }));
  }
}

const CLOSED = {
  1001: 'The server is restarting.',
  4401: 'Your login has expired.',
  4403: 'The server has ended it.'
};

const $ = (id) => document.getElementById(id);
const element = (tag, textContent, className = '') =>
  Object.assign(document.createElement(tag), { textContent, className });

let chat, login, me;

$('login').onsubmit = (event) => {
  event.preventDefault();
  login = new FormData(event.target, event.submitter);
  me = login.get('user');
  $('title').textContent = document.title = `Chat: ${login.get('room')}`;
  $('login').hidden = true;
  $('chat').hidden = $('leave').hidden = false;
  $('text').focus();
  connect();
};

$('again').onclick = () => {
  $('text').focus();
  connect();
};

$('composer').onsubmit = (event) => {
  event.preventDefault();
  chat.send($('text').value);
  // The server sends a message to everybody else, so this window shows its own.
  displayMessage($('text').value, { userId: me });
  $('text').value = $('status').textContent = '';
};

async function connect() {
  $('again').hidden = true;
  $('status').textContent = 'Connecting …';
  let token;
  try {
    const response = await fetch($('login').action, { method: 'POST', body: login });
    token = (await response.json()).access_token;
  } catch {
    return disconnected('The server does not answer.');
  }

  chat = new ChatRoom(login.get('room'), token);
  chat.onMembersChanged = (members) => updateMembersList(members);
  chat.onMemberJoined = () => {}; // the server's greeting says it
  chat.onMemberLeft = (member) => display(element('p', `${member.name} has left.`, 'note'));
  chat.onMessage = (data, from) => {
    // A client may send any JSON; this page shows text.
    if (typeof data?.text === 'string') displayMessage(data.text, from);
  };
  chat.ws.onopen = () => chat.join(); // the name is the token's
  chat.ws.onclose = (e) => disconnected(CLOSED[e.code] ?? '');
  chat.ws.addEventListener('message', (e) => {
    const { type, code, message } = JSON.parse(e.data);
    if (type === 'error') {
      $('status').textContent = `${code === 'FORBIDDEN' ? 'Sorry, you cannot come in.' : 'Sorry, that failed.'} ${message}`;
    }
  });
}

function disconnected(why) {
  $('status').textContent = `You are not connected. ${why}`;
  $('again').hidden = false;
  $('send').disabled = true;
  $('members').replaceChildren();
}

function updateMembersList(members) {
  $('status').textContent = '';
  $('send').disabled = false;
  $('members').replaceChildren(...members.map(({ id, name }) => element('li', id === me ? `${name} (you)` : name)));
}

function displayMessage(text, from) {
  if (from.clientId === 'server') return display(element('p', text, 'note'));
  const line = element('p', '', from.userId === me ? 'message mine' : 'message');
  const sender = chat.members.find(({ id }) => id === from.userId);
  line.append(element('b', sender?.name ?? from.userId), element('span', text));
  display(line);
}

function display(line) {
  $('log').append(line);
  line.scrollIntoView({ block: 'nearest' });
}
