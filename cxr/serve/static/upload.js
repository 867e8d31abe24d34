// Upload page: drop or choose several films, see them, send them one by one with progress.
(() => {
  const form = document.getElementById("upload");
  const field = document.getElementById("film");
  const drop = document.getElementById("drop");
  const list = document.getElementById("chosen");
  const status = document.getElementById("status");
  const send = document.getElementById("send");
  const pattern = document.getElementById("film-row");
  const mostBytes = Number(form.dataset.bytes);
  const mostFiles = Number(form.dataset.files);
  const endings = /\.(jpe?g|png|dcm|dicom|tiff?)$/i;
  const longestWait = 60;
  let films = [];
  let busy = false;

  const say = (text) => { status.textContent = text; };
  const sized = (bytes) => bytes < 1048576 ? `${Math.ceil(bytes / 1024)} kB` : `${(bytes / 1048576).toFixed(1)} MB`;

  // A fault that the server would find too, said at once; DICOM files often have no ending.
  function faultOf(file) {
    if (file.size === 0) return "The file is empty.";
    if (file.size > mostBytes) return `${sized(file.size)}: at most ${sized(mostBytes)} are taken.`;
    if (/\.[a-z]{2,5}$/i.test(file.name) && !endings.test(file.name)) return "Only JPEG, PNG, TIFF and DICOM are read.";
    return "";
  }

  function add(files) {
    if (busy) return;
    let left = 0;
    for (const file of files) {
      if (films.length >= mostFiles) { left += 1; continue; }
      if (films.some((film) => film.file.name === file.name && film.file.size === file.size)) continue;
      films.push(rowOf(file));
    }
    field.value = "";
    refresh(left);
  }

  function rowOf(file) {
    const node = pattern.content.firstElementChild.cloneNode(true);
    const film = { file, node, fault: faultOf(file), done: false };
    node.querySelector(".name").textContent = file.name;
    node.querySelector(".no-picture").textContent = endings.test(file.name) ? file.name.split(".").pop().toUpperCase() : "file";
    show(film, film.fault || sized(file.size), Boolean(film.fault));
    const button = node.querySelector(".remove");
    button.setAttribute("aria-label", `Remove ${file.name}`);
    button.addEventListener("click", () => {
      films = films.filter((other) => other !== film);
      node.remove();
      refresh(0);
      (list.querySelector(".remove") || field).focus();
    });
    preview(film);
    list.append(node);
    return film;
  }

  function preview(film) {
    if (!/\.(jpe?g|png)$/i.test(film.file.name) || film.fault) return;
    const picture = film.node.querySelector("img");
    const address = URL.createObjectURL(film.file);
    picture.addEventListener("load", () => {
      picture.hidden = false;
      film.node.querySelector(".no-picture").hidden = true;
      URL.revokeObjectURL(address);
    });
    picture.addEventListener("error", () => URL.revokeObjectURL(address));
    picture.src = address;
  }

  function show(film, text, bad = false) {
    film.node.querySelector(".state").textContent = text;
    film.node.classList.toggle("bad", bad);
  }

  function refresh(left) {
    const good = films.filter((film) => !film.fault && !film.done).length;
    field.required = films.length === 0;
    send.hidden = !good && films.some((film) => film.done);
    send.textContent = good > 1 ? `Predict ${good} films` : "Predict";
    const parts = [];
    if (left) parts.push(`At most ${mostFiles} files go at once; ${left} left out.`);
    if (films.length && !good && !films.some((film) => film.done)) parts.push("None of these can be sent.");
    say(parts.join(" "));
  }

  function request(film) {
    return new Promise((resolve) => {
      const body = new FormData();
      body.append("csrf_token", form.elements.csrf_token.value);
      body.append("film", film.file);
      const call = new XMLHttpRequest();
      const bar = film.node.querySelector("progress");
      bar.hidden = false;
      bar.setAttribute("aria-label", `Upload of ${film.file.name}`);
      call.open("POST", form.action);
      call.setRequestHeader("Accept", "application/json");
      call.responseType = "json";
      call.upload.addEventListener("progress", (event) => {
        if (event.lengthComputable) bar.value = (100 * event.loaded) / event.total;
      });
      call.upload.addEventListener("load", () => {
        bar.removeAttribute("value");
        show(film, "Predicting…");
      });
      call.addEventListener("loadend", () => {
        bar.hidden = true;
        resolve({ status: call.status, body: call.response || {}, wait: Number(call.getResponseHeader("Retry-After")) });
      });
      call.send(body);
    });
  }

  const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

  async function predict(film) {
    let waited = 0;
    for (;;) {
      show(film, "Uploading…");
      const answer = await request(film);
      if ((answer.status === 503 || answer.status === 429) && waited < longestWait) {
        const seconds = Math.min(Math.max(answer.wait || 2, 1), 20);
        waited += seconds;
        show(film, `The server is busy; trying again in ${seconds} s.`);
        await pause(seconds);
        continue;
      }
      return finish(film, answer);
    }
  }

  function finish(film, { status: code, body }) {
    film.done = true;
    film.node.querySelector(".remove").remove();
    if (code === 401 && body.login) { location.assign(body.login); return null; }
    const made = body.films?.[0];
    if (!made) {
      const failure = body.failures?.[0]?.reason || body.error;
      show(film, failure || (code ? `Not done (${code}).` : "The connection was lost; try again."), true);
      return null;
    }
    const link = document.createElement("a");
    link.href = made.url;
    link.className = "cover";
    link.textContent = film.file.name;
    film.node.querySelector(".name").replaceChildren(link);
    show(film, made.outcome + (made.refer ? ", refer" : ""));
    const picture = film.node.querySelector("img");
    picture.src = made.thumb;
    picture.hidden = false;
    film.node.querySelector(".no-picture").hidden = true;
    return made;
  }

  form.addEventListener("submit", async (event) => {
    const waiting = films.filter((film) => !film.fault && !film.done);
    if (!films.length) return;  // let the browser say that a file is needed
    event.preventDefault();
    if (busy || !waiting.length) return;
    busy = true;
    send.disabled = true;
    const made = [];
    for (const [index, film] of waiting.entries()) {
      say(`Film ${index + 1} of ${waiting.length}.`);
      made.push(await predict(film));
    }
    busy = false;
    send.disabled = false;
    const good = made.filter(Boolean);
    if (films.length === 1 && good.length === 1) { location.assign(good[0].url); return; }
    refresh(0);
    say(`${good.length} of ${waiting.length} ${waiting.length === 1 ? "film has a result" : "films have a result"}.`);
  });

  field.addEventListener("change", () => add([...field.files]));
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); add([...event.dataTransfer.files]); });
  // A file dropped beside the field must not replace the page.
  for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
})();
