// Result page: choose class, member and view without a reload; opacity; zoom.
(() => {
  const stage = document.getElementById("stage");
  const tools = document.getElementById("tools");
  const layer = document.getElementById("layer");
  const mapped = document.getElementById("mapped");
  const slider = document.getElementById("opacity");
  const steps = [1, 1.5, 2, 3, 4, 6];
  let step = 0;

  function chosen() {
    const values = new URLSearchParams({ label: tools.elements.label.value });
    if (tools.elements.member.value) values.set("member", tools.elements.member.value);
    return values;
  }

  // Width in pixels at which the image fits: its box may be wider than the image.
  function fitted(canvas) {
    const { width, height } = canvas.viewBox.baseVal;
    return Math.min(canvas.clientWidth, (canvas.clientHeight * width) / height);
  }

  function change() {
    const values = chosen();
    const { label, member, view } = tools.elements;
    const who = member.value || "ensemble";
    layer.setAttribute("href", `${layer.dataset.src}?${values}`);
    mapped.setAttribute("aria-label", `The image with the heat map of ${label.value} by ${member.value || "the ensemble"}`);
    document.getElementById("map-name").textContent = `${label.value}, ${who}`;
    const link = document.getElementById("download-png");
    link.href = `${link.href.split("?")[0]}?${values}`;
    stage.className = stage.className.replace(/\b(over|beside|image)\b/, view.value);
    values.set("view", view.value);
    history.replaceState(null, "", `?${values}`);
    zoom(0);
  }

  // Zooming keeps the middle of what is seen in the middle.
  function zoom(by) {
    step = by ? Math.min(Math.max(step + by, 0), steps.length - 1) : 0;
    stage.classList.remove("zooming");
    const boxes = [...stage.querySelectorAll(".zoomed")];
    const middles = boxes.map((box) => [(box.scrollLeft + box.clientWidth / 2) / box.scrollWidth, (box.scrollTop + box.clientHeight / 2) / box.scrollHeight]);
    for (const canvas of stage.querySelectorAll(".canvas")) canvas.style.width = "";
    const fits = boxes.map((box) => fitted(box.querySelector(".canvas")));
    stage.classList.toggle("zooming", step > 0);
    boxes.forEach((box, index) => {
      if (step) box.querySelector(".canvas").style.width = `${fits[index] * steps[step]}px`;
      box.scrollLeft = middles[index][0] * box.scrollWidth - box.clientWidth / 2;
      box.scrollTop = middles[index][1] * box.scrollHeight - box.clientHeight / 2;
    });
    document.getElementById("zoom-value").textContent = `${100 * steps[step]} %`;
    document.getElementById("zoom-in").disabled = step === steps.length - 1;
    document.getElementById("zoom-out").disabled = step === 0;
  }

  if (layer) {
    tools.addEventListener("change", change);
    tools.addEventListener("submit", (event) => { event.preventDefault(); change(); });
    slider.addEventListener("input", () => {
      layer.setAttribute("opacity", slider.value / 100);
      slider.nextElementSibling.textContent = `${slider.value} %`;
    });
    document.getElementById("show-lungs")?.addEventListener("change", (event) => {
      document.getElementById("lungs").setAttribute("visibility", event.target.checked ? "visible" : "hidden");
    });
  }
  document.getElementById("zoom-in").addEventListener("click", () => zoom(1));
  document.getElementById("zoom-out").addEventListener("click", () => zoom(-1));
  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || !["+", "=", "-"].includes(event.key)) return;
    event.preventDefault();
    zoom(event.key === "-" ? -1 : 1);
  });
  zoom(0);
})();
