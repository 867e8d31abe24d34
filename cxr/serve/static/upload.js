// Upload page: drop or choose several images, see them, send them one by one with progress.
(() => {
  const form = document.getElementById("upload");
  const field = document.getElementById("image");
  const drop = document.getElementById("drop");
  const list = document.getElementById("chosen");
  const status = document.getElementById("status");
  const send = document.getElementById("send");
  const pattern = document.getElementById("image-row");
  const mostBytes = Number(form.dataset.bytes);
  const mostFiles = Number(form.dataset.files);
  const endings = /\.(jpe?g|png|dcm|dicom|tiff?)$/i;
  const longestWait = 60;
  let images = [];
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
      if (images.length >= mostFiles) { left += 1; continue; }
      if (images.some((image) => image.file.name === file.name && image.file.size === file.size)) continue;
      images.push(rowOf(file));
    }
    field.value = "";
    refresh(left);
  }

  function rowOf(file) {
    const node = pattern.content.firstElementChild.cloneNode(true);
    const image = { file, node, fault: faultOf(file), done: false };
    node.querySelector(".name").textContent = file.name;
    node.querySelector(".no-picture").textContent = endings.test(file.name) ? file.name.split(".").pop().toUpperCase() : "file";
    show(image, image.fault || sized(file.size), Boolean(image.fault));
    const button = node.querySelector(".remove");
    button.setAttribute("aria-label", `Remove ${file.name}`);
    button.addEventListener("click", () => {
      images = images.filter((other) => other !== image);
      node.remove();
      refresh(0);
      (list.querySelector(".remove") || field).focus();
    });
    preview(image);
    list.append(node);
    return image;
  }

  function preview(image) {
    if (!/\.(jpe?g|png)$/i.test(image.file.name) || image.fault) return;
    const picture = image.node.querySelector("img");
    const address = URL.createObjectURL(image.file);
    picture.addEventListener("load", () => {
      picture.hidden = false;
      image.node.querySelector(".no-picture").hidden = true;
      URL.revokeObjectURL(address);
    });
    picture.addEventListener("error", () => URL.revokeObjectURL(address));
    picture.src = address;
  }

  function show(image, text, bad = false) {
    image.node.querySelector(".state").textContent = text;
    image.node.classList.toggle("bad", bad);
  }

  function refresh(left) {
    const good = images.filter((image) => !image.fault && !image.done).length;
    field.required = images.length === 0;
    send.hidden = !good && images.some((image) => image.done);
    send.textContent = good > 1 ? `Predict ${good} images` : "Predict";
    const parts = [];
    if (left) parts.push(`At most ${mostFiles} files go at once; ${left} left out.`);
    if (images.length && !good && !images.some((image) => image.done)) parts.push("None of these can be sent.");
    say(parts.join(" "));
  }

  function request(image) {
    return new Promise((resolve) => {
      const body = new FormData();
      body.append("csrf_token", form.elements.csrf_token.value);
      body.append("image", image.file);
      const call = new XMLHttpRequest();
      const bar = image.node.querySelector("progress");
      bar.hidden = false;
      bar.setAttribute("aria-label", `Upload of ${image.file.name}`);
      call.open("POST", form.action);
      call.setRequestHeader("Accept", "application/json");
      call.responseType = "json";
      call.upload.addEventListener("progress", (event) => {
        if (event.lengthComputable) bar.value = (100 * event.loaded) / event.total;
      });
      call.upload.addEventListener("load", () => {
        bar.removeAttribute("value");
        show(image, "Predicting…");
      });
      call.addEventListener("loadend", () => {
        bar.hidden = true;
        resolve({ status: call.status, body: call.response || {}, wait: Number(call.getResponseHeader("Retry-After")) });
      });
      call.send(body);
    });
  }

  const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

  async function predict(image) {
    let waited = 0;
    for (;;) {
      show(image, "Uploading…");
      const answer = await request(image);
      if ((answer.status === 503 || answer.status === 429) && waited < longestWait) {
        const seconds = Math.min(Math.max(answer.wait || 2, 1), 20);
        waited += seconds;
        show(image, `The server is busy; trying again in ${seconds} s.`);
        await pause(seconds);
        continue;
      }
      return finish(image, answer);
    }
  }

  function finish(image, { status: code, body }) {
    image.done = true;
    image.node.querySelector(".remove").remove();
    if (code === 401 && body.login) { location.assign(body.login); return null; }
    const made = body.images?.[0];
    if (!made) {
      const failure = body.failures?.[0]?.reason || body.error;
      show(image, failure || (code ? `Not done (${code}).` : "The connection was lost; try again."), true);
      return null;
    }
    const link = document.createElement("a");
    link.href = made.url;
    link.className = "cover";
    link.textContent = image.file.name;
    image.node.querySelector(".name").replaceChildren(link);
    show(image, made.outcome + (made.refer ? ", refer" : ""));
    const picture = image.node.querySelector("img");
    picture.src = made.thumb;
    picture.hidden = false;
    image.node.querySelector(".no-picture").hidden = true;
    return made;
  }

  form.addEventListener("submit", async (event) => {
    const waiting = images.filter((image) => !image.fault && !image.done);
    if (!images.length) return;  // let the browser say that a file is needed
    event.preventDefault();
    if (busy || !waiting.length) return;
    busy = true;
    send.disabled = true;
    const made = [];
    for (const [index, image] of waiting.entries()) {
      say(`Image ${index + 1} of ${waiting.length}.`);
      made.push(await predict(image));
    }
    busy = false;
    send.disabled = false;
    const good = made.filter(Boolean);
    if (images.length === 1 && good.length === 1) { location.assign(good[0].url); return; }
    refresh(0);
    say(`${good.length} of ${waiting.length} ${waiting.length === 1 ? "image has a result" : "images have a result"}.`);
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
